package contracts

import (
	"regexp"
	"strings"
)

// placeholder is {{args.name}} or {{context.name}}. It is no language: nothing else is replaced.
var placeholder = regexp.MustCompile(`\{\{\s*(args|context)\.([A-Za-z_][A-Za-z0-9_.-]{0,63})\s*\}\}`)

// maxElement is the largest element of a command, or variable of an environment, that Linux passes on
// (MAX_ARG_STRLEN, 32 pages, the closing NUL included).
const maxElement = 128 << 10

// Expand replaces the placeholders in the elements of a command. An element that is only a placeholder whose value is
// absent is left out; elsewhere an absent value is nothing. An error has the code invalid_args.
func Expand(argv []string, args, context map[string]any) ([]string, error) {
	expanded := make([]string, 0, len(argv))
	for _, element := range argv {
		if !strings.Contains(element, "{{") {
			expanded = append(expanded, element)
			continue
		}
		value := func(m []string) (string, bool) {
			from := args
			if m[1] == "context" {
				from = context
			}
			v, ok := from[m[2]]
			return Text(v), ok && v != nil
		}
		if m := placeholder.FindStringSubmatch(element); m != nil && m[0] == element {
			if _, given := value(m); !given {
				continue
			}
		}
		text := placeholder.ReplaceAllStringFunc(element, func(s string) string {
			v, _ := value(placeholder.FindStringSubmatch(s))
			return v
		})
		switch {
		case strings.Contains(text, "\x00"):
			return nil, Errorf(InvalidArgs, "%s holds a NUL character, which no command can", quote(element))
		case len(text) >= maxElement:
			return nil, Errorf(InvalidArgs, "%s is longer than 128 KiB, more than a command takes; let the tool read ARGS_FILE", quote(element))
		}
		expanded = append(expanded, text)
	}
	return expanded, nil
}

// Text is an argument as a tool gets it: a string as it is, nothing for null, all else as compact JSON.
func Text(v any) string {
	switch t := v.(type) {
	case nil:
		return ""
	case string:
		return t
	}
	return compact(v)
}
