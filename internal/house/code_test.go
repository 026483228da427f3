package house

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestNoInitFunctions(t *testing.T) {
	for _, f := range goFiles(t) {
		f.functions(func(name string, d *ast.FuncDecl) {
			if name == "init" {
				t.Errorf("%s: init runs in every program that imports the package, wanted or not; let the caller ask for it.", f.at(d))
			}
		})
	}
}

func TestUnsafeIsInItsOwnFiles(t *testing.T) {
	unsafeFile := regexp.MustCompile(`_unsafe(_test|_[a-z0-9]+)?\.go$`) // with a GOOS or GOARCH
	for _, f := range goFiles(t) {
		for _, path := range f.imports() {
			switch {
			case path == "C":
				t.Errorf("%s imports \"C\": this project has no cgo.", f.path)
			case path == "unsafe" && !unsafeFile.MatchString(f.path):
				t.Errorf("%s imports unsafe; that belongs in a small file named *_unsafe.go, where it can be audited.", f.path)
			}
		}
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:linkname ") {
					t.Errorf("%s: linkname reaches into what is not ours and breaks with the next Go.", f.at(c))
				}
			}
		}
	}
}

// TestOnlyCommandsPrint: libraries return what they know, and the command line
// decides what of it is printed, and where.
func TestOnlyCommandsPrint(t *testing.T) {
	printing := regexp.MustCompile(`^(fmt\.Print(f|ln)?|os\.(Stdout|Stderr|Stdin|Exit)|log\..*)$`)
	for _, f := range goFiles(t) {
		if !f.isLibrary() || f.inTree("internal/cli", "bench") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if x, sel, ok := selected(n); ok && printing.MatchString(x+"."+sel) {
				t.Errorf("%s: a library uses %s.%s; return it, or take an io.Writer, and let internal/cli print.", f.at(n), x, sel)
			}
			return true
		})
	}
}

func TestNoPanics(t *testing.T) {
	allowed := readExceptions(t, "panics.txt")
	for _, f := range goFiles(t) {
		if !f.isLibrary() {
			continue
		}
		f.functions(func(name string, d *ast.FuncDecl) {
			ast.Inspect(d, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" && !allowed.has(f.path+" "+name) {
						t.Errorf("%s: %s panics; return an error, or say in panics.txt why no input can get there.", f.at(n), name)
					}
				}
				return true
			})
		})
	}
	allowed.checkUsed(t)
}

// TestGlobalsDoNotChange: what a package keeps to itself two callers share
// without knowing, and tests that run side by side as well.
func TestGlobalsDoNotChange(t *testing.T) {
	allowed := readExceptions(t, "globals.txt")
	files := goFiles(t)
	globals := map[string]bool{} // package directory and name
	for _, f := range files {
		for name, spec := range f.globals() {
			globals[f.dir+" "+name] = true
			if f.isLibrary() && isShared(spec) && !allowed.has(f.path+" "+name) {
				t.Errorf("%s: the package's variable %s is there to be changed; put it in a struct that the caller owns.", f.at(spec), name)
			}
		}
	}
	for _, f := range files {
		if !f.isLibrary() {
			continue
		}
		f.functions(func(function string, d *ast.FuncDecl) {
			local := locals(d)
			for _, id := range assigned(d) {
				if globals[f.dir+" "+id.Name] && !local[id.Name] && !allowed.has(f.path+" "+id.Name) {
					t.Errorf("%s: %s changes the package's variable %s; put it in a struct that the caller owns.", f.at(id), function, id.Name)
				}
			}
		})
	}
	allowed.checkUsed(t)
}

// globals returns the variables that the file declares for its package.
func (f file) globals() map[string]*ast.ValueSpec {
	all := map[string]*ast.ValueSpec{}
	for _, decl := range f.ast.Decls {
		if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.VAR {
			for _, spec := range d.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					all[name.Name] = spec.(*ast.ValueSpec)
				}
			}
		}
	}
	return all
}

// isShared reports whether the variable is of a type that guards or is changing
// state. A sync.OnceValue is neither: it is a constant, computed late.
func isShared(spec *ast.ValueSpec) (found bool) {
	ast.Inspect(spec, func(n ast.Node) bool {
		if _, ok := n.(*ast.FuncLit); ok {
			return false
		}
		x, sel, _ := selected(n)
		found = found || x == "atomic" || x == "sync" && slices.Contains([]string{"Mutex", "RWMutex", "Map", "Pool", "Once", "WaitGroup"}, sel)
		return true
	})
	return found
}

// locals returns every name that the function declares, anywhere.
func locals(d *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, id := range n.Names {
				names[id.Name] = true
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				names[id.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, e := range n.Lhs {
					names[e.(*ast.Ident).Name] = true
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					names[id.Name] = true
				}
			}
		}
		return true
	})
	return names
}

// assigned returns the variables that the function assigns to, also to parts of.
func assigned(d *ast.FuncDecl) (ids []*ast.Ident) {
	add := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.Ident:
				ids = append(ids, x)
				return
			default:
				return
			}
		}
	}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		}
		return true
	})
	return ids
}

const (
	functionLines = 60
	fileLines     = 500
)

// TestShortEnoughToSeeWhole leaves out tests, whose tables may be long, and
// what a program wrote.
func TestShortEnoughToSeeWhole(t *testing.T) {
	allowed := readExceptions(t, "long.txt")
	for _, f := range goFiles(t) {
		if f.isTest() || f.isGenerated() {
			continue
		}
		if n := f.set.Position(f.ast.FileEnd).Line; n > fileLines && !allowed.has(f.path) {
			t.Errorf("%s has %d lines, more than %d: is it one room or several? Split it, or give the reason in long.txt.", f.path, n, fileLines)
		}
		f.functions(func(name string, d *ast.FuncDecl) {
			if n := f.lines(d); n > functionLines && !allowed.has(f.path+" "+name) {
				t.Errorf("%s: %s has %d lines, more than %d; split it, or give the reason in long.txt.", f.at(d), name, n, functionLines)
			}
		})
	}
	allowed.checkUsed(t)
}

// TestSkipsHaveReasons: a skipped test is one that nobody runs, until shown
// otherwise.
func TestSkipsHaveReasons(t *testing.T) {
	allowed := readExceptions(t, "skips.txt")
	skipping := regexp.MustCompile(`^([tbf]|tb)\.(Skip|Skipf|SkipNow)$|^testing\.Short$`)
	for _, f := range goFiles(t) {
		f.functions(func(name string, d *ast.FuncDecl) {
			ast.Inspect(d, func(n ast.Node) bool {
				if x, sel, ok := selected(n); ok && skipping.MatchString(x+"."+sel) && !allowed.has(f.path+" "+name) {
					t.Errorf("%s: %s may skip; fail instead, use testenv, or say in skips.txt where the test does run.", f.at(n), name)
				}
				return true
			})
		})
	}
	allowed.checkUsed(t)
}

func TestNothingIsLeftForLater(t *testing.T) {
	later := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	for _, f := range goFiles(t) {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if word := later.FindString(c.Text); word != "" && !f.inTree("internal/house") {
					t.Errorf("%s: %s: do it now, or open an issue.", f.at(c), word)
				}
			}
		}
	}
}
