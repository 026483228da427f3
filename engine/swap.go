package engine

import (
	"math"
	"path/filepath"

	"github.com/tare-oci/tare/runtime/host"
)

// memorySwapBytes is the limit of memory and swap together that a container
// gets: what was asked for, or else, as docker has it, twice that of memory,
// where the kernel can hold it to that.
func (o RunOptions) memorySwapBytes() (int64, error) {
	if o.MemorySwapBytes != 0 || o.MemoryBytes <= 0 || o.MemoryBytes > math.MaxInt64/2 {
		return o.MemorySwapBytes, nil
	}
	machine, err := host.Probe()
	if err != nil || !countsSwap(&machine) {
		return 0, err
	}
	return 2 * o.MemoryBytes, nil
}

// countsSwap says whether control groups limit swap here. On version 1 the
// files are in every group, on version 2 in none but the root's descendants that
// have the controller.
func countsSwap(machine *host.Facts) bool {
	if h := machine.Hierarchy("memory"); h != nil {
		return exists(h.Mountpoint + "/memory.memsw.limit_in_bytes")
	}
	if machine.Unified == nil {
		return false
	}
	groups, _ := filepath.Glob(machine.Unified.Mountpoint + "/*/memory.max") // fails for a bad pattern only
	for _, g := range groups {
		return exists(filepath.Dir(g) + "/memory.swap.max")
	}
	return exists("/proc/swaps") // what a kernel without swap does not have
}
