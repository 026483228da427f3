package rdt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats are what resctrl says of a container, in runc's form.
type Stats struct {
	L3CacheInfo       *L3CacheInfo `json:"l3_cache_info,omitempty"`
	L3CacheSchemaRoot string       `json:"l3_cache_schema_root,omitempty"` // of all that has no class of its own
	L3CacheSchema     string       `json:"l3_cache_schema,omitempty"`
	MemBwInfo         *MemBwInfo   `json:"mem_bw_info,omitempty"`
	MemBwSchemaRoot   string       `json:"mem_bw_schema_root,omitempty"`
	MemBwSchema       string       `json:"mem_bw_schema,omitempty"`
	MBM               []Bandwidth  `json:"mbm_stats,omitempty"`
	CMT               []Occupancy  `json:"cmt_stats,omitempty"`
}

// L3CacheInfo says what the machine's cache can be divided into.
type L3CacheInfo struct {
	CBMMask    string `json:"cbm_mask,omitempty"`
	MinCBMBits uint64 `json:"min_cbm_bits,omitempty"`
	NumCLOSIDs uint64 `json:"num_closids,omitempty"`
}

// MemBwInfo says the same of the memory's bandwidth, in percent.
type MemBwInfo struct {
	BandwidthGran uint64 `json:"bandwidth_gran,omitempty"`
	DelayLinear   uint64 `json:"delay_linear,omitempty"`
	MinBandwidth  uint64 `json:"min_bandwidth,omitempty"`
	NumCLOSIDs    uint64 `json:"num_closids,omitempty"`
}

// Bandwidth is how many bytes went between one L3 cache and memory, all and those of its own node.
type Bandwidth struct {
	TotalBytes uint64 `json:"mbm_total_bytes"`
	LocalBytes uint64 `json:"mbm_local_bytes"`
}

// Occupancy is how many bytes of one L3 cache are in use.
type Occupancy struct {
	LLC uint64 `json:"llc_occupancy"`
}

// Stats reads the shares of the group's class, and where it is monitored what it uses.
func (g *Group) Stats() (*Stats, error) {
	root := g.root().root
	s := &Stats{}
	for _, side := range []struct{ dir, what string }{{root, "root"}, {g.Class, "class"}} {
		text, err := readAll(filepath.Join(side.dir, "schemata"))
		if err != nil {
			return nil, fmt.Errorf("resctrl: %w", err)
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			l3, mb := strings.HasPrefix(line, "L3:"), strings.HasPrefix(line, "MB:")
			switch {
			case l3 && side.what == "root":
				s.L3CacheSchemaRoot = line
			case l3:
				s.L3CacheSchema = line
			case mb && side.what == "root":
				s.MemBwSchemaRoot = line
			case mb:
				s.MemBwSchema = line
			}
		}
	}
	info := infoDir{dir: filepath.Join(root, "info")}
	if s.L3CacheSchema != "" {
		s.L3CacheInfo = &L3CacheInfo{info.text("L3/cbm_mask"), info.number("L3/min_cbm_bits"), info.number("L3/num_closids")}
	}
	if s.MemBwSchema != "" {
		s.MemBwInfo = &MemBwInfo{info.number("MB/bandwidth_gran"), info.number("MB/delay_linear"), info.number("MB/min_bandwidth"), info.number("MB/num_closids")}
	}
	if info.err == nil && g.Monitor != "" {
		info.err = s.monitor(g.Monitor)
	}
	if info.err != nil {
		return nil, fmt.Errorf("resctrl: %w", info.err)
	}
	return s, nil
}

// monitor reads what a monitoring group counts, by cache.
func (s *Stats) monitor(group string) error {
	caches, err := filepath.Glob(filepath.Join(group, "mon_data", "mon_L3_*"))
	if err != nil {
		return err
	}
	for _, cache := range caches {
		counts := infoDir{dir: cache}
		if exists(cache + "/mbm_total_bytes") {
			s.MBM = append(s.MBM, Bandwidth{counts.number("mbm_total_bytes"), counts.number("mbm_local_bytes")})
		}
		if exists(cache + "/llc_occupancy") {
			s.CMT = append(s.CMT, Occupancy{counts.number("llc_occupancy")})
		}
		if counts.err != nil {
			return counts.err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// infoDir reads small files, and keeps the first error; a file that the kernel does not have is empty.
type infoDir struct {
	dir string
	err error
}

func (d *infoDir) text(name string) string {
	text, err := readAll(filepath.Join(d.dir, name))
	if err != nil && d.err == nil && !errors.Is(err, fs.ErrNotExist) {
		d.err = err
	}
	return strings.TrimSpace(text)
}

// number is 0 also where the hardware has no count just now ("Unavailable").
func (d *infoDir) number(name string) uint64 {
	text := d.text(name)
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && text != "" && text != "Unavailable" && d.err == nil {
		d.err = fmt.Errorf("%s: %w", filepath.Join(d.dir, name), err)
	}
	return n
}
