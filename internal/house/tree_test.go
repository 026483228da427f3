package house

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/tare-oci/tare"
	root   = "../.." // where go.mod is
)

// file is one Go file of the module.
type file struct {
	path string // below the root, such as "image/layer/apply.go"
	dir  string
	syntax
}

type syntax struct {
	set *token.FileSet
	ast *ast.File
}

func (f file) isTest() bool      { return strings.HasSuffix(f.path, "_test.go") }
func (f file) isMain() bool      { return f.ast.Name.Name == "main" }
func (f file) isGenerated() bool { return ast.IsGenerated(f.ast) }
func (f file) isLibrary() bool   { return !f.isTest() && !f.isMain() }

// at tells a position as compilers do.
func (f file) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.set.Position(n.Pos()).Line)
}

// lines returns the number of lines that a part of the file takes.
func (f file) lines(n ast.Node) int {
	return f.set.Position(n.End()).Line - f.set.Position(n.Pos()).Line + 1
}

// imports returns the import paths.
func (f file) imports() []string {
	var all []string
	for _, spec := range f.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value) // the parser has read it
		all = append(all, p)
	}
	return all
}

// inTree reports whether the file is in one of the directories or below.
func (f file) inTree(dirs ...string) bool { return within(f.dir, dirs...) }

func within(dir string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") })
}

// goFiles parses every Go file of the module, for every platform, tests too.
func goFiles(t *testing.T) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		files = append(files, file{path: filepath.ToSlash(rel), dir: path.Dir(filepath.ToSlash(rel)), syntax: syntax{set, parsed}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d Go files found: is %s the module's root?", len(files), root)
	}
	return files
}

// command runs a command in the module's root and returns its output.
func command(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		t.Fatalf("%s: %v\n%s", cmd, err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// committed returns all files that are, or are about to be, in the repository.
func committed(t *testing.T) []string {
	t.Helper()
	// The checkout may be another user's, as in CI.
	out := command(t, "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	var files []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	return files
}

// requirements returns the modules that go.mod asks for directly, and those that
// modules below this one do.
func requirements(t *testing.T) []string {
	t.Helper()
	var direct []string
	for _, name := range committed(t) {
		if path.Base(name) != "go.mod" {
			continue
		}
		var mod struct {
			Require []struct {
				Path     string
				Indirect bool
			}
		}
		if err := json.Unmarshal(command(t, "go", "mod", "edit", "-json", name), &mod); err != nil {
			t.Fatal(err)
		}
		for _, r := range mod.Require {
			if !r.Indirect && r.Path != module {
				direct = append(direct, r.Path)
			}
		}
	}
	return direct
}

// exceptions is a list of what a rule leaves out.
type exceptions struct {
	name   string
	reason map[string]string
	used   map[string]bool
}

// readExceptions reads a list whose lines are "what: reason".
func readExceptions(t *testing.T, name string) exceptions {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	e := exceptions{name: "internal/house/" + name, reason: map[string]string{}, used: map[string]bool{}}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		what, reason, _ := strings.Cut(line, ": ")
		if strings.TrimSpace(reason) == "" {
			t.Errorf("%s:%d: %q has no reason; write \"what: reason\".", e.name, n, line)
		}
		if e.reason[what] != "" {
			t.Errorf("%s:%d: %q is there twice.", e.name, n, what)
		}
		e.reason[what] = reason
	}
	return e
}

// has reports whether the list excepts this, and takes note that it was needed.
func (e exceptions) has(what string) bool {
	e.used[what] = true
	return e.reason[what] != ""
}

// checkUsed reports lines that except nothing.
func (e exceptions) checkUsed(t *testing.T) {
	t.Helper()
	for what := range e.reason {
		if !e.used[what] {
			t.Errorf("%s: %q is not needed any more; remove the line.", e.name, what)
		}
	}
}

// functionName tells a function as "Name" or a method as "Type.Name".
func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	return receiver(f.Recv.List[0].Type) + "." + f.Name.Name
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// functions calls visit for every function that is declared in the file.
func (f file) functions(visit func(name string, decl *ast.FuncDecl)) {
	for _, d := range f.ast.Decls {
		if decl, ok := d.(*ast.FuncDecl); ok {
			visit(functionName(decl), decl)
		}
	}
}

// selected returns X and Sel of an expression X.Sel with a plain name X.
func selected(n ast.Node) (x, sel string, ok bool) {
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return "", "", false
	}
	id, ok := s.X.(*ast.Ident)
	if !ok {
		return "", "", false
	}
	return id.Name, s.Sel.Name, true
}
