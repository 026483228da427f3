package house

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// The three libraries can each be used without the others; only these join them.
var (
	libraries = []string{"image", "distribution", "runtime"}
	joiners   = []string{"engine", "internal/cli", "cmd", "bench"}
)

// TestWallsBetweenLibraries follows the imports, tests' too, from each package.
func TestWallsBetweenLibraries(t *testing.T) {
	imports := map[string]map[string]bool{} // package directory → those it imports
	for _, f := range goFiles(t) {
		if imports[f.dir] == nil {
			imports[f.dir] = map[string]bool{}
		}
		for _, p := range f.imports() {
			if dir, ours := strings.CutPrefix(p, module+"/"); ours {
				imports[f.dir][dir] = true
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(imports)) {
		if within(dir, joiners...) {
			continue
		}
		met := map[string][]string{} // library → the way there
		follow(imports, dir, nil, met)
		if len(met) > 1 {
			var ways []string
			for _, library := range slices.Sorted(maps.Keys(met)) {
				ways = append(ways, strings.Join(met[library], " → "))
			}
			t.Errorf("%s brings together what only %s may: %s.", dir, strings.Join(joiners, ", "), strings.Join(ways, "; "))
		}
		for p := range imports[dir] {
			if within(p, joiners...) && !within(dir, "bench") {
				t.Errorf("%s imports %s, which is above it; turn the dependency round.", dir, p)
			}
		}
	}
}

// follow notes the first way from dir to each library.
func follow(imports map[string]map[string]bool, dir string, way []string, met map[string][]string) {
	if slices.Contains(way, dir) {
		return
	}
	way = append(slices.Clone(way), dir)
	for _, library := range libraries {
		if within(dir, library) && met[library] == nil {
			met[library] = way
		}
	}
	for _, next := range slices.Sorted(maps.Keys(imports[dir])) {
		follow(imports, next, way, met)
	}
}

// TestRuntimeCommandStaysSmall: its start is part of every container's start.
func TestRuntimeCommandStaysSmall(t *testing.T) {
	heavy := map[string]string{
		"net":                           "it has nobody to call; its sockets are those of golang.org/x/sys",
		"crypto/tls":                    "it has nobody to call",
		"regexp":                        "expressions are compiled at every start",
		"text/template":                 "it keeps the linker from dropping unused methods",
		"html/template":                 "it keeps the linker from dropping unused methods",
		"github.com/spf13/cobra":        "it brings in text/template; the flag package is enough",
		"github.com/klauspost/compress": "layers are not its business",
		module + "/image":               "images are not its business",
		module + "/distribution":        "registries are not its business",
		module + "/engine":              "the engine calls the runtime",
		module + "/internal/testenv":    "it is for tests",
	}
	for dep := range strings.FieldsSeq(string(command(t, "go", "list", "-deps", "./cmd/tare-runtime"))) {
		for path, why := range heavy {
			if within(dep, path) {
				t.Errorf("cmd/tare-runtime links %s: %s. Find the import with: go mod why %s, or go list -deps.", dep, why, dep)
			}
		}
	}
}

func TestTestenvIsForTests(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.isTest() && !f.inTree("internal/testenv") && slices.Contains(f.imports(), module+"/internal/testenv") {
			t.Errorf("%s imports internal/testenv, which is for tests only.", f.path)
		}
	}
}

// TestDependenciesHaveReasons compares go.mod with dependencies.txt.
func TestDependenciesHaveReasons(t *testing.T) {
	listed := readExceptions(t, "dependencies.txt")
	for _, path := range requirements(t) {
		if !listed.has(path) {
			t.Errorf("go.mod requires %s; say in internal/house/dependencies.txt why it is worth it.", path)
		}
	}
	listed.checkUsed(t)
}
