package contracts

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	const huge = math.MaxInt64
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "1048576": 1 << 20, "9007199254740993": 9007199254740993, "9223372036854775807": huge,
		"1k": 1 << 10, "512m": 512 << 20, "2g": 2 << 30, "4t": 4 << 40, "1kb": 1 << 10, "1mb": 1 << 20, "1gb": 1 << 30, "1tb": 1 << 40,
		"1Ki": 1 << 10, "512Mi": 512 << 20, "2Gi": 2 << 30, "4Ti": 4 << 40, "1KiB": 1 << 10, "1MiB": 1 << 20, "1GiB": 1 << 30, "1TiB": 1 << 40,
		"1.5Gi": 3 << 29, "0.5k": 512, "0.25Mi": 256 << 10, "2 GiB": 2 << 30, "1.0": 1, "007": 7,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "+1", "1.5", "0.1Ki", "1e3", "0x10", "1_000", "Mi", "1 000", "1,5Gi", ".5Gi", "1.Gi", "1  Gi", " 1", "1 ", "1mi", "1mib", "1ki",
		"512M", "1K", "1G", "1T", "1KB", "1MB", "1GB", "1TB", "1Mb", "1b", "1B", "1Pi", "inf", "nan", "9223372036854775808", "8388608Ti", "99999999999999999999", "１"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestDurationText(t *testing.T) {
	for text, want := range map[string]Duration{
		`0`: 0, `-0`: 0, `1`: Duration(time.Second), `0.5`: Duration(500 * time.Millisecond), `-2.5`: Duration(-2500 * time.Millisecond),
		`1e3`: Duration(1000 * time.Second), `1.5E-3`: Duration(1500 * time.Microsecond),
		`0.57`: Duration(570 * time.Millisecond), `1.000000001`: Duration(time.Second + 1), // as a float times 1e9, cut, these lose a nanosecond
		`9223372036.854775807`: math.MaxInt64, `-9223372036.854775808`: math.MinInt64, `0.0000000001`: 0,
		`"1m30s"`: Duration(90 * time.Second), `"250ms"`: Duration(250 * time.Millisecond), `"1.5h"`: Duration(90 * time.Minute), `"-1us"`: Duration(-time.Microsecond), `"1µs"`: Duration(time.Microsecond), `"0"`: 0,
	} {
		var got Duration
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{`"30"`, `""`, `"5 minutes"`, `"1d"`, `true`, `[1]`, `{}`, `1e30`, `-1e30`, `9223372036.854775808`, `1e999999999`, `"99999999h"`} {
		var got Duration
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is taken for %s", text, got)
		}
	}
}

func TestDurationRoundTrip(t *testing.T) {
	for d, want := range map[Duration]string{
		0: "0", 1: "0.000000001", -1: "-0.000000001", Seconds(30): "30", Seconds(0.1): "0.1", Seconds(1.1): "1.1", Seconds(-90): "-90", Seconds(100): "100",
		math.MaxInt64: "9223372036.854775807", math.MinInt64: "-9223372036.854775808", Seconds(86400 * 365 * 100): "3153600000",
	} {
		text, err := json.Marshal(d)
		if err != nil || string(text) != want {
			t.Errorf("%d: %s, %v; want %s", d, text, err, want)
		}
		var again Duration
		if err := json.Unmarshal(text, &again); err != nil || again != d {
			t.Errorf("%s: %d, %v; want %d", text, again, err, d)
		}
	}
	if got := Seconds(90.5).String(); got != "1m30.5s" {
		t.Errorf("as text: %s", got)
	}
	if got := Seconds(1.001); got != Duration(1001*time.Millisecond) { // cut, it were a nanosecond less
		t.Errorf("1.001 s are %d ns", got)
	}
}

func TestCPUText(t *testing.T) {
	for text, want := range map[string]CPU{
		`1`: 1000, `1.5`: 1500, `0.001`: 1, `0.0005`: 1, `4096`: 4096_000, `1e1`: 10_000,
		`"1500m"`: 1500, `"1m"`: 1, `"2"`: 2000, `"0.25"`: 250, `".5"`: 500, `"1e3"`: 1000_000, `"4096000m"`: 4096_000,
	} {
		var got CPU
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
		text, err := json.Marshal(want)
		var again CPU
		if err != nil || json.Unmarshal(text, &again) != nil || again != want {
			t.Errorf("%d: %s, %v, comes back as %d", want, text, err, again)
		}
	}
	for _, text := range []string{`0`, `-1`, `0.0001`, `4097`, `1e999`, `""`, `"m"`, `"1.5m"`, `"-1"`, `"+1"`, `"."`, `"1e"`, `"1e999"`, `"0"`, `"0m"`, `"1_0"`, `"0x1p2"`, `"inf"`, `"nan"`, `" 1"`, `"1 "`, `"99999999999999999999m"`, `true`, `[]`} {
		var got CPU
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is taken for %d", text, got)
		}
	}
}

// Sizes, durations and shares stand in structs of other packages, which encoding/json reads and writes.
func TestValuesInStructs(t *testing.T) {
	type limits struct {
		Size     Size     `json:"size,omitempty"`
		Duration Duration `json:"duration,omitempty"`
		CPU      CPU      `json:"cpu,omitempty"`
	}
	var l limits
	if err := json.Unmarshal([]byte(`{"size":"1.5Gi","duration":"1m","cpu":"250m"}`), &l); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(l)
	if err != nil || string(text) != `{"size":1610612736,"duration":60,"cpu":0.25}` {
		t.Errorf("%s %v", text, err)
	}
	if text, err := json.Marshal(limits{}); err != nil || string(text) != `{}` {
		t.Errorf("%s %v", text, err)
	}
	if err := json.Unmarshal([]byte(`{"size":"512M"}`), &l); err == nil || err.Error() != `line 1:1: "512M" could mean 1000s or 1024s; write "512Mi" (1024s) or the bytes` {
		t.Errorf("%v", err)
	}
}
