package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	second = time.Second
	hour   = time.Hour
	day    = 24 * time.Hour
)

// Duration is a time such as "90s", "12h30m", or "30d"; "0s" is allowed,
// less is not.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err == nil {
		*d = parsed
	}
	return err
}

// ParseDuration reads what String writes. Beyond package time's units it has
// days, which alone may be more than Go's 24h make readable.
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf("%.40q is no duration such as 90s, 12h or 30d", s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, bad
		}
		return Duration(time.Duration(n) * day), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, bad
	}
	return Duration(d), nil
}

// or is standard where nothing is set.
func (d *Duration) or(standard time.Duration) time.Duration {
	if d == nil {
		return standard
	}
	return time.Duration(*d)
}

func (d Duration) String() string {
	if t := time.Duration(d); t > 0 && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// Size is a number of bytes such as "4MiB", "10GB" or "512".
type Size int64

var units = [...]struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"PiB", 1 << 50},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15}, {"B", 1},
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := ParseSize(string(text))
	if err == nil {
		*s = parsed
	}
	return err
}

// ParseSize reads a number with or without a unit.
func ParseSize(text string) (Size, error) {
	number, factor := text, int64(1)
	for _, u := range units {
		if before, ok := strings.CutSuffix(text, u.name); ok {
			number, factor = strings.TrimRight(before, " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange), n < 0:
		return 0, fmt.Errorf("%.40q is no size such as 512, 4MiB or 10GB", text)
	case err != nil || n > math.MaxInt64/factor:
		return 0, fmt.Errorf("%.40q is larger than sizes can be", text)
	}
	return Size(n * factor), nil
}

func (s Size) String() string {
	for i := len(units) - 1; i >= 0; i-- {
		if u := units[i]; strings.Contains(u.name, "i") && int64(s) >= u.bytes && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
