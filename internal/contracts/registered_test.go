package contracts

import (
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	for _, test := range []struct{ key, name, version string }{
		{"hello/1.2.0", "hello", "1.2.0"}, {"hello/_", "hello", ""}, {"_a-Z/9-rc.1_x", "_a-Z", "9-rc.1_x"},
	} {
		name, version, ok := ParseKey(test.key)
		if !ok || name != test.name || version != test.version || Key(name, version) != test.key {
			t.Errorf("%s: %q, %q, %t, %s", test.key, name, version, ok, Key(name, version))
		}
	}
	for _, key := range []string{"", "hello", "hello/", "/1", "hello/1/2", "a b/1", "hello/_1", "hello/-1", "_/_/_"} {
		if name, version, ok := ParseKey(key); ok {
			t.Errorf("%q is a key: %q, %q", key, name, version)
		}
	}
}

func TestDecodeRegistered(t *testing.T) {
	c, err := DecodeRegistered("hello/1.2.0", []byte(`{"name":"hello","version":"1.2.0","engine":"local","engine_spec":{"command":"echo $ARG_WHO","shell":true},"base_dir":"/srv"}`))
	if err != nil || c.Name != "hello" || c.Version != "1.2.0" || !c.Spec.(*LocalSpec).Shell || c.BaseDir != "/srv" {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, test := range []struct{ key, value, want string }{
		{"hello/1", ``, "hello/1:1:1: is empty"},
		{"hello/1", `name: hello`, "hello/1:1:1: is not JSON"},
		{"hello/1", `[]`, "hello/1:1:1: is a list"},
		{"hello/1", `{"name":"hello","version":"1","engine":"local"}`, "hello/1:1:1: engine_spec: is missing"},
		{"hello/1", `{"name":"hello","version":"1","engine":"local","engine_spec":{"command":["a"]},"new_limit":1}`, "new_limit: unknown key"},
		{"hello/2", `{"name":"hello","version":"1","engine":"local","engine_spec":{"command":["a"]}}`, "hello/2: name: this contract belongs under the key hello/1"},
		{"other/1", `{"name":"hello","engine":"local","engine_spec":{"command":["a"]}}`, "belongs under the key hello/_"},
		{"hello/_", `{"tools":[{"name":"hello","engine":"local","engine_spec":{"command":["a"]}}]}`, "tools: unknown key"},
		{"hello/_", `{"name":"hello","engine":"local","engine_spec":{"command":["a"],"cwd":"x"}}`, `hello/_: engine_spec.cwd: "x" is relative`},
	} {
		if _, err := DecodeRegistered(test.key, []byte(test.value)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.key, test.value, err, test.want)
		}
	}
}

// Relative paths are refused wherever they begin at the contract's directory, and nowhere else.
func TestCheckRegistrable(t *testing.T) {
	for text, want := range map[string]string{
		"{engine: local, engine_spec: {command: [a]}}":                                                                                      "",
		"{engine: local, engine_spec: {command: [bin/a], cwd: /srv}}":                                                                       "",
		"{engine: local, engine_spec: {command: [bin/a], cwd: x}, base_dir: /srv}":                                                          "",
		"{engine: local, engine_spec: {command: './a', shell: true}}":                                                                       "",
		"{engine: local, engine_spec: {command: ['{{args.tool}}/a']}}":                                                                      "",
		"{engine: docker, engine_spec: {image: a, command: [bin/a], cwd: app, mounts: {/a: /a}}}":                                           "",
		"{engine: local, engine_spec: {command: [bin/a]}}":                                                                                  `f.yaml:1: engine_spec.command[0]: "bin/a" is relative`,
		"{engine: local, engine_spec: {command: [a], cwd: x}}":                                                                              `engine_spec.cwd: "x" is relative`,
		"{engine: local, engine_spec: {command: [a]}, base_dir: x}":                                                                         `base_dir: "x" is relative`,
		"{engine: docker, engine_spec: {image: a, command: [a], mounts: [/a:/a, 'b:/b']}}":                                                  `engine_spec.mounts[1]: "b" is relative`,
		"{engine: docker, engine_spec: {image: a, command: [a]}, fallback: [dagger, {engine: local, engine_spec: {command: [a], cwd: .}}]}": `fallback[1].engine_spec.cwd: "." is relative`,
		"{version: 1.., engine: local, engine_spec: {command: [a]}}":                                                                        `version: "1.." cannot be in the registry`,
	} {
		list, err := ParseContracts("f.yaml", []byte("{name: a, "+strings.TrimPrefix(text, "{")))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		err = list[0].CheckRegistrable()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// What is stored comes back as it was, whatever contract it is, unless it is refused for its paths.
func FuzzDecodeRegistered(f *testing.F) {
	documents(f, ".json")
	f.Add([]byte(`{"name":"a","version":"1","engine":"local","engine_spec":{"command":["a"]}}`))
	f.Add([]byte(`{"name":"a","engine":"docker-sdk","engineSpec":{"command":["a"],"image":"i","mounts":{"/a":"/a"}},"fallback":["dagger"]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if _, err := DecodeRegistered("a/1", value); err != nil {
			checkProblems(t, value, err)
		}
		list, err := ParseContracts("f.json", value)
		if err != nil {
			return
		}
		for _, c := range list {
			if c.CheckRegistrable() != nil {
				continue
			}
			stored, err := c.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := DecodeRegistered(Key(c.Name, c.Version), stored)
			if err != nil {
				t.Fatalf("%s: %v", stored, err)
			}
			if !sameContract(c, again) {
				t.Fatalf("comes back otherwise:\n%+v\n%+v\n%s", c, again, stored)
			}
			if name, version, ok := ParseKey(Key(c.Name, c.Version)); !ok || name != c.Name || version != c.Version {
				t.Errorf("the key %s is that of %q %q", Key(c.Name, c.Version), name, version)
			}
		}
	})
}
