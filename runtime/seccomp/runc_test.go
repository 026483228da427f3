package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tare-oci/tare/runtime/linux"
)

// runcFilter reads a filter that runc 1.1.5 (libseccomp 2.5.4) loaded for the
// profile of the same name on x86_64, as strace saw it.
func runcFilter(t testing.TB, name string) []Instruction {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".runc.bpf"))
	if err != nil {
		t.Fatal(err)
	}
	var program []Instruction
	for ; len(b) >= InstructionSizeBytes; b = b[InstructionSizeBytes:] {
		program = append(program, Instruction{
			Code: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:]),
		})
	}
	return program
}

// Every decision on the engines' own profiles, and on some made up of all kinds
// of rules, is runc's.
func TestSameAsRunc(t *testing.T) {
	for _, name := range []string{"docker", "podman", "podman-rootless", "rules-1", "rules-2", "rules-3", "rules-4"} {
		profile, theirs := load(t, name), runcFilter(t, name)
		ours := mustCompile(t, profile, linux.ArchX86_64).Instructions
		decisions := map[uint32]int{}
		compare := func(d Data) {
			want, _, err := Interpret(theirs, d)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := Interpret(ours, d)
			if err != nil {
				t.Fatal(err)
			}
			decisions[got]++
			if got != want {
				t.Errorf("%s: %+v: %s, runc %s", name, d, ActionName(got), ActionName(want))
			}
		}
		compareNumbers(compare)
		compareArguments(compare)
		g := fromRand(rand.New(rand.NewPCG(8, 9)))
		for range 5000 {
			compare(g.data(profile, linux.ArchX86_64))
		}
		t.Logf("%s: %d decisions", name, len(decisions))
		for action, n := range decisions {
			t.Logf("  %s: %d", ActionName(action), n)
		}
	}
}

func compareNumbers(compare func(Data)) {
	for _, arch := range []linux.Arch{linux.ArchX86_64, linux.ArchX86, linux.ArchAARCH64} {
		for _, base := range []uint32{0, linux.X32SyscallBit, 0x80000000, 0xffffffff - 599} {
			for nr := range uint32(600) {
				compare(Data{Arch: arch.Audit(), Nr: base + nr})
			}
		}
	}
}

func compareArguments(compare func(Data)) {
	for _, arch := range []linux.Arch{linux.ArchX86_64, linux.ArchX86} {
		for _, call := range []string{"clone", "personality", "socket", "socketcall", "ipc"} {
			nr, _ := linux.SyscallNumber(arch, call)
			for _, a := range someValues {
				for _, b := range someValues {
					for _, c := range append(someValues, 9, 16, 0x20000, 0x20008) {
						compare(Data{Arch: arch.Audit(), Nr: uint32(nr), Args: [6]uint64{c, a, b}})
						compare(Data{Arch: arch.Audit(), Nr: uint32(nr), Args: [6]uint64{a, b, c}})
					}
				}
			}
		}
	}
}

// What a call costs, next to runc's filter for the same profile.
func TestExecutedInstructions(t *testing.T) {
	for _, name := range []string{"docker", "podman"} {
		ours := mustCompile(t, load(t, name), linux.ArchX86_64).Instructions
		ourMean, ourMost := executed(t, ours)
		theirs := runcFilter(t, name)
		theirMean, theirMost := executed(t, theirs)
		t.Logf("%s: %d instructions, %.1f executed for a call, %d at most; runc's: %d, %.1f, %d",
			name, len(ours), ourMean, ourMost, len(theirs), theirMean, theirMost)
		if len(ours) > 400 || ourMean > 14 || ourMost > 20 {
			t.Errorf("%s: the filter has become slow", name)
		}
	}
}

// executed returns the mean and the maximum over all calls of x86_64.
func executed(t *testing.T, program []Instruction) (mean float64, most int) {
	sum, calls := 0, 0
	for nr := range 600 {
		if _, ok := linux.SyscallName(linux.ArchX86_64, nr); !ok {
			continue
		}
		_, n, err := Interpret(program, Data{Nr: uint32(nr), Arch: linux.ArchX86_64.Audit()})
		if err != nil {
			t.Fatal(err)
		}
		calls++
		sum += n
		most = max(most, n)
	}
	return float64(sum) / float64(calls), most
}
