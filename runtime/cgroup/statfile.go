package cgroup

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// statFiles reads the control files of one directory. What this kernel does not have reads as nothing; the first other error stays.
type statFiles struct {
	dir string
	err error
}

// text reads a file; ok is false where there is none.
func (f *statFiles) text(name string) (text string, ok bool) {
	if f.dir == "" || f.err != nil {
		return "", false
	}
	text, err := readFile(f.dir + "/" + name)
	if gone(err) || isUnreadable(err) {
		return "", false
	}
	f.err = err
	return text, err == nil
}

// parsed notes what is wrong with a file's content.
func (f *statFiles) parsed(name string, err error) {
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%s/%s: %w", f.dir, name, err)
	}
}

// number reads a file of one number.
func (f *statFiles) number(name string) uint64 {
	text, ok := f.text(name)
	if !ok {
		return 0
	}
	n, err := parseNumber(strings.TrimSpace(text))
	f.parsed(name, err)
	return n
}

// pairs reads a flat-keyed file.
func (f *statFiles) pairs(name string) map[string]uint64 {
	text, ok := f.text(name)
	if !ok {
		return nil
	}
	pairs, err := parsePairs(text)
	f.parsed(name, err)
	return pairs
}

// list reads a file of numbers such as "0-3,7".
func (f *statFiles) list(name string) []uint16 {
	text, ok := f.text(name)
	if !ok {
		return nil
	}
	list, err := parseList(strings.TrimSpace(text))
	f.parsed(name, err)
	return list
}

// numbers reads a file of numbers between spaces.
func (f *statFiles) numbers(name string) (list []uint64) {
	text, _ := f.text(name)
	for field := range strings.FieldsSeq(text) {
		n, err := parseNumber(field)
		f.parsed(name, err)
		list = append(list, n)
	}
	return list
}

// pressure reads a file of pressure stall information.
func (f *statFiles) pressure(name string) *Pressure {
	text, ok := f.text(name)
	if !ok {
		return nil
	}
	p, err := parsePressure(text)
	f.parsed(name, err)
	return p
}

// blkio reads version 1's lines of "8:0 Read 4096" or "8:0 4096"; ok is false where there is no such file.
func (f *statFiles) blkio(name string) (entries []BlkioEntry, ok bool) {
	text, ok := f.text(name)
	entries, err := parseBlkio(text)
	f.parsed(name, err)
	return entries, ok
}

// parseNumber reads a number; "max" is the largest one, and what is below zero, version 1's word for it, too.
func parseNumber(s string) (uint64, error) {
	if s == "max" || s == "-1" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

func parsePairs(text string) (map[string]uint64, error) {
	pairs := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := parseNumber(value)
		if err != nil {
			return nil, err
		}
		pairs[key] = n
	}
	return pairs, nil
}

// parseList reads a list of CPUs or memory nodes.
func parseList(s string) (list []uint16, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, err
		}
		b, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return nil, err
		}
		if a > b || len(list) > math.MaxUint16 {
			return nil, fmt.Errorf("%q is not a list such as 0-3,7", s)
		}
		for n := a; n <= b; n++ {
			list = append(list, uint16(n))
		}
	}
	return list, nil
}

// parsePressure reads lines such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func parsePressure(text string) (*Pressure, error) {
	p := new(Pressure)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		e := &p.Full
		switch fields[0] {
		case "some":
			e = &p.Some
		case "full":
		default:
			continue
		}
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			var err error
			switch key {
			case "avg10":
				e.Avg10, err = strconv.ParseFloat(value, 64)
			case "avg60":
				e.Avg60, err = strconv.ParseFloat(value, 64)
			case "avg300":
				e.Avg300, err = strconv.ParseFloat(value, 64)
			case "total":
				e.Total, err = strconv.ParseUint(value, 10, 64)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

func parseBlkio(text string) (entries []BlkioEntry, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] == "Total" {
			continue
		}
		e := BlkioEntry{}
		if e.Major, e.Minor, err = parseDevice(fields[0]); err != nil {
			return nil, err
		}
		if len(fields) > 2 {
			e.Op = fields[1]
		}
		if e.Value, err = strconv.ParseUint(fields[min(len(fields)-1, 2)], 10, 64); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseDevice(s string) (major, minor uint64, err error) {
	first, second, _ := strings.Cut(s, ":")
	if major, err = strconv.ParseUint(first, 10, 32); err == nil {
		minor, err = strconv.ParseUint(second, 10, 32)
	}
	return major, minor, err
}

// parseIOStat reads version 2's lines such as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0".
func parseIOStat(text string) (bytes, operations []BlkioEntry, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue // a device without any
		}
		major, minor, err := parseDevice(fields[0])
		if err != nil {
			return nil, nil, err
		}
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			to, op := &bytes, "Read"
			switch key {
			case "rbytes":
			case "wbytes":
				op = "Write"
			case "rios":
				to = &operations
			case "wios":
				to, op = &operations, "Write"
			default:
				continue
			}
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return nil, nil, err
			}
			*to = append(*to, BlkioEntry{major, minor, op, n})
		}
	}
	return bytes, operations, nil
}

// pageSizes are those of huge pages, as "2MB".
func pageSizes() (sizes []string) {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil // a kernel without them
	}
	for _, e := range entries {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err == nil {
			sizes = append(sizes, pageSize(kb))
		}
	}
	return sizes
}

func pageSize(kb uint64) string {
	units := [...]string{"KB", "MB", "GB"}
	i := 0
	for ; kb >= 1024 && i < len(units)-1; i++ {
		kb /= 1024
	}
	return strconv.FormatUint(kb, 10) + units[i]
}
