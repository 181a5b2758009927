// Command main computes figures of a file, or greets somebody.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unicode/utf8"
)

func main() {
	file := flag.String("file", "", "file to compute figures of")
	name := flag.String("greet", "", "who to greet")
	message := flag.String("message", "Hello", "the greeting")
	format := flag.String("format", "text", "text or json")
	flag.Parse()
	var err error
	if *file != "" {
		err = figures(*file)
	} else {
		err = greet(*name, *message, *format)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func figures(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	blank := 0
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			blank++
		}
	}
	return printJSON(map[string]any{
		"file": file, "bytes": len(text), "characters": utf8.RuneCount(text), "lines": len(lines),
		"blank_lines": blank, "words": len(strings.Fields(string(text))),
	})
}

func greet(name, message, format string) error {
	greeting := fmt.Sprintf("%s, %s!", message, name)
	if format == "json" {
		return printJSON(map[string]any{"greeting": greeting, "go": runtime.Version()})
	}
	_, err := fmt.Println(greeting)
	return err
}

func printJSON(v any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
