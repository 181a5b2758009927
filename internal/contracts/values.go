package contracts

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

// Duration is a span of time, written as seconds (a number, fractions allowed) or as a Go duration string ("1m30s").
// In JSON it is written as seconds.
type Duration time.Duration

// Seconds makes a Duration.
func Seconds(s float64) Duration { return Duration(s * float64(time.Second)) }

// String is the Go form, as 1m30s.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes seconds.
func (d Duration) MarshalJSON() ([]byte, error) {
	return []byte(strconv.FormatFloat(time.Duration(d).Seconds(), 'f', -1, 64)), nil
}

// UnmarshalJSON reads what MarshalJSON writes, and duration strings.
func (d *Duration) UnmarshalJSON(text []byte) error { return unmarshalJSON(text, d) }

func (d *Duration) decodeNode(dec *decoder, n *yaml.Node, path string) {
	if f, ok := number(n); ok && math.Abs(f) < math.MaxInt64/float64(time.Second) {
		*d = Seconds(f)
		return
	}
	if t, err := time.ParseDuration(n.Value); err == nil && n.Tag == "!!str" {
		*d = Duration(t)
		return
	}
	dec.problem(n, path, `%s is not a duration; write seconds (30, 0.5) or "1m30s"`, describe(n))
}

// Size is a number of bytes, written as a whole number or with a unit: Ki Mi Gi Ti, or k m g t as Docker has them;
// both count in 1024. In JSON it is written as a number.
type Size int64

var sizeText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)\s?(?:(k|m|g|t|kb|mb|gb|tb|Ki|Mi|Gi|Ti|KiB|MiB|GiB|TiB|KB|MB|GB|TB)|([KMGT]))?$`)

// ParseSize reads the textual form.
func ParseSize(s string) (Size, error) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf(`%s is not a size; write bytes (1048576) or "512Mi", "512m"`, quote(s))
	}
	if m[3] != "" {
		return 0, fmt.Errorf(`%q could mean 1000s or 1024s; write "%s%si" (1024s) or the bytes`, s, m[1], m[3])
	}
	f, _ := strconv.ParseFloat(m[1], 64)
	if m[2] != "" {
		f *= map[byte]float64{'k': 1 << 10, 'K': 1 << 10, 'm': 1 << 20, 'M': 1 << 20, 'g': 1 << 30, 'G': 1 << 30, 't': 1 << 40, 'T': 1 << 40}[m[2][0]]
	}
	if f > math.MaxInt64/2 || f != math.Trunc(f) {
		return 0, fmt.Errorf("%q is not a whole number of bytes that fits", s)
	}
	return Size(f), nil
}

// UnmarshalJSON reads numbers and strings.
func (s *Size) UnmarshalJSON(text []byte) error { return unmarshalJSON(text, s) }

func (s *Size) decodeNode(d *decoder, n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" && n.Tag != "!!int" {
		d.problem(n, path, `%s is not a size; write bytes (1048576) or "512Mi", "512m"`, describe(n))
		return
	}
	size, err := ParseSize(n.Value)
	if err != nil {
		d.problem(n, path, "%s", err)
		return
	}
	*s = size
}

// CPU is a share of processors in thousandths: 1500 is one and a half. It is written 1.5 or "1500m"; in JSON as a
// number of processors.
type CPU int64

var cpuText = regexp.MustCompile(`^([0-9]+)m$`)

// MarshalJSON writes processors.
func (c CPU) MarshalJSON() ([]byte, error) {
	return []byte(strconv.FormatFloat(float64(c)/1000, 'f', -1, 64)), nil
}

// UnmarshalJSON reads numbers and strings.
func (c *CPU) UnmarshalJSON(text []byte) error { return unmarshalJSON(text, c) }

func (c *CPU) decodeNode(d *decoder, n *yaml.Node, path string) {
	f, ok := number(n)
	if !ok && n.Kind == yaml.ScalarNode {
		if m := cpuText.FindStringSubmatch(n.Value); m != nil {
			f, _ = strconv.ParseFloat(m[1], 64)
			f, ok = f/1000, true
		} else if n.Tag == "!!str" {
			var err error
			f, err = strconv.ParseFloat(n.Value, 64)
			ok = err == nil
		}
	}
	if !ok || !(f > 0 && f <= 4096) {
		d.problem(n, path, `%s is not a share of processors; write 1.5 or "1500m"`, describe(n))
		return
	}
	*c = CPU(math.Round(f * 1000))
}

// unmarshalJSON lets encoding/json, which programs read our own messages back with, use a type's decodeNode.
func unmarshalJSON(text []byte, into nodeDecoder) error {
	n, err := ParseJSON("", text)
	if err != nil {
		return err
	}
	var d decoder
	into.decodeNode(&d, n, "")
	if len(d.problems) > 0 {
		return d.problems
	}
	return nil
}

var (
	_ json.Marshaler   = Duration(0)
	_ json.Unmarshaler = (*Duration)(nil)
	_ json.Marshaler   = CPU(0)
)
