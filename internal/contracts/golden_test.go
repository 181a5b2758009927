package contracts

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the code says now to the golden files; look at the difference before it is committed")

// Contracts that must be read: what they come to is beside them as JSON, one contract a line, and reading that JSON gives
// the same contracts again.
func TestValidContracts(t *testing.T) {
	for _, file := range golden(t, "valid", ".golden") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			list := load(t, file)
			var got bytes.Buffer
			for _, c := range list {
				text, err := marshalJSON(c)
				if err != nil {
					t.Fatal(err)
				}
				got.Write(append(text, '\n'))
				again, err := ParseContracts("", text)
				if err != nil {
					t.Fatalf("its own JSON is refused: %s\n%s", err, text)
				}
				if len(again) != 1 || !sameContract(c, again[0]) {
					t.Errorf("comes back otherwise:\n%+v\n%+v", c, again[0])
				}
				var lenient Contract
				if err := json.Unmarshal(text, &lenient); err != nil || !sameContract(c, &lenient) {
					t.Errorf("encoding/json reads it otherwise (%v):\n%+v\n%+v", err, c, lenient)
				}
			}
			compareGolden(t, file+".golden", got.String())
		})
	}
}

// Contracts that must be refused, with all that is said about them.
func TestBrokenContracts(t *testing.T) {
	for _, file := range golden(t, "broken", ".err") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			list, err := ParseContracts(filepath.Base(file), text)
			if err == nil {
				t.Fatalf("is accepted: %+v", list)
			}
			if _, ok := err.(Problems); !ok {
				t.Errorf("%T, not Problems", err)
			}
			compareGolden(t, strings.TrimSuffix(file, filepath.Ext(file))+".err", err.Error()+"\n")
		})
	}
}

// golden lists the documents of a folder; those that end in expected are what is expected of the others.
func golden(t *testing.T, folder, expected string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join("testdata", "contracts", folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, file := range all {
		if filepath.Ext(file) != expected {
			files = append(files, file)
		}
	}
	if len(files) == 0 || !*update && len(all) != 2*len(files) {
		t.Fatalf("%d documents among %d files in %s; each has one that ends in %s", len(files), len(all), folder, expected)
	}
	return files
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%s (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got %s\nwant %s", filepath.Base(file), got, want)
	}
}

// load reads the contracts of a file as ParseContracts does: base_dir as it is written.
func load(t *testing.T, file string) []*Contract {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list, err := ParseContracts(file, text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// sameContract compares all of two contracts but where they were read. JSON cannot tell what is empty from what is absent.
func sameContract(a, b *Contract) bool {
	x, y := *a, *b
	x.File, x.Line, y.File, y.Line = "", 0, "", 0
	return same(reflect.ValueOf(x), reflect.ValueOf(y))
}

// same is reflect.DeepEqual, for which an empty list or map is the same as none.
func same(a, b reflect.Value) bool {
	if a.IsValid() != b.IsValid() || a.IsValid() && a.Type() != b.Type() {
		return false
	}
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
	case reflect.Pointer, reflect.Interface:
		return a.IsNil() == b.IsNil() && (a.IsNil() || same(a.Elem(), b.Elem()))
	case reflect.Slice:
		for i := range min(a.Len(), b.Len()) {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return a.Len() == b.Len()
	case reflect.Map:
		for _, key := range a.MapKeys() {
			if v := b.MapIndex(key); !v.IsValid() || !same(a.MapIndex(key), v) {
				return false
			}
		}
		return a.Len() == b.Len()
	case reflect.Invalid:
	default:
		return a.Interface() == b.Interface()
	}
	return true
}
