package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

// Duration is a span of time, written as seconds (a number, fractions allowed) or as a Go duration string ("1m30s").
// In JSON it is written as seconds.
type Duration time.Duration

// Seconds makes a Duration.
func Seconds(s float64) Duration { return Duration(math.Round(s * float64(time.Second))) }

// String is the Go form, as 1m30s.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes seconds, to the nanosecond.
func (d Duration) MarshalJSON() ([]byte, error) {
	sign, n := "", uint64(d)
	if d < 0 {
		sign, n = "-", -n
	}
	text := fmt.Appendf(nil, "%s%d.%09d", sign, n/uint64(time.Second), n%uint64(time.Second))
	return bytes.TrimRight(bytes.TrimRight(text, "0"), "."), nil
}

// UnmarshalJSON reads what MarshalJSON writes, and duration strings.
func (d *Duration) UnmarshalJSON(text []byte) error { return unmarshalJSON(text, d) }

func (d *Duration) decodeNode(dec *decoder, n *yaml.Node, path string) {
	text := n.Value
	f, isNumber := number(n)
	if isNumber {
		text += "s" // exact, unlike the float
	}
	if t, err := time.ParseDuration(text); err == nil && (isNumber || n.Tag == "!!str") {
		*d = Duration(t)
		return
	}
	if isNumber && math.Abs(f) < math.MaxInt64/float64(time.Second) { // 1e3
		*d = Seconds(f)
		return
	}
	dec.problem(n, path, `%s is not a duration; write seconds (30, 0.5) or "1m30s"`, describe(n))
}

// Size is a number of bytes, written as a whole number or with a unit: Ki Mi Gi Ti, or k m g t (and kb mb gb tb) as
// Docker has them; all count in 1024. In JSON it is written as a number.
type Size int64

var sizeText = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,19})?)(?: ?([A-Za-z]+))?$`)

// sizeUnits are the powers of 1024 that the units stand for.
var sizeUnits = map[string]int{"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "kb": 1, "mb": 2, "gb": 3, "tb": 4,
	"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}

// ParseSize reads the textual form.
func ParseSize(s string) (Size, error) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf(`%s is not a size; write bytes (1048576) or "512Mi", "512m"`, quote(s))
	}
	switch unit := m[2]; unit {
	case "K", "M", "G", "T", "KB", "MB", "GB", "TB":
		return 0, fmt.Errorf(`%q could mean 1000s or 1024s; write "%s%ci" (1024s) or the bytes`, s, m[1], unit[0])
	}
	power, known := sizeUnits[m[2]]
	if !known {
		return 0, fmt.Errorf("%s has an unknown unit; there are Ki, Mi, Gi, Ti, and k, m, g, t for the same", quote(s))
	}
	bytes, _ := new(big.Rat).SetString(m[1])
	bytes.Mul(bytes, new(big.Rat).SetInt64(1<<(10*power)))
	if !bytes.IsInt() || !bytes.Num().IsInt64() {
		return 0, fmt.Errorf("%q is not a whole number of bytes that fits", s)
	}
	return Size(bytes.Num().Int64()), nil
}

// UnmarshalJSON reads numbers and strings.
func (s *Size) UnmarshalJSON(text []byte) error { return unmarshalJSON(text, s) }

func (s *Size) decodeNode(d *decoder, n *yaml.Node, path string) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" && (n.Tag != "!!int" || !jsonNumber(n.Value)) {
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

var cpuText = regexp.MustCompile(`^(?:([0-9]{1,9})m|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)$`)

// MarshalJSON writes processors.
func (c CPU) MarshalJSON() ([]byte, error) {
	return []byte(strconv.FormatFloat(float64(c)/1000, 'f', -1, 64)), nil
}

// UnmarshalJSON reads numbers and strings.
func (c *CPU) UnmarshalJSON(text []byte) error { return unmarshalJSON(text, c) }

func (c *CPU) decodeNode(d *decoder, n *yaml.Node, path string) {
	f, ok := number(n)
	if m := cpuText.FindStringSubmatch(n.Value); !ok && m != nil && n.Tag == "!!str" {
		if ok = true; m[1] != "" {
			f, _ = strconv.ParseFloat(m[1], 64)
			f /= 1000
		} else {
			f, _ = strconv.ParseFloat(n.Value, 64)
		}
	}
	if f = math.Round(f * 1000); !ok || f < 1 || f > 4096_000 {
		d.problem(n, path, `%s is not a share of processors; write 1.5 or "1500m"`, describe(n))
		return
	}
	*c = CPU(f)
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
