package house

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestEachPackageHasOneDoc(t *testing.T) {
	docs := map[string][]string{}
	for _, f := range goFiles(t) {
		if f.isTest() {
			continue
		}
		docs[f.dir] = slices.Concat(docs[f.dir], nil)
		if f.ast.Doc == nil {
			continue
		}
		docs[f.dir] = append(docs[f.dir], f.path)
		text := f.ast.Doc.Text()
		if !f.isMain() && !strings.HasPrefix(text, "Package "+f.ast.Name.Name+" ") {
			t.Errorf("%s: a package's doc begins with \"Package %s \", this one with %.30q.", f.path, f.ast.Name.Name, text)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(docs)) {
		switch files := docs[dir]; len(files) {
		case 0:
			t.Errorf("%s: the package has no doc; tell in doc.go what it does, and which section of a specification it implements.", dir)
		case 1:
		default:
			t.Errorf("%s: the package has docs in %s; keep one.", dir, strings.Join(files, " and "))
		}
	}
}

func TestPackageNamesSaySomething(t *testing.T) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "types"}
	for _, f := range goFiles(t) {
		if name := strings.TrimSuffix(f.ast.Name.Name, "_test"); slices.Contains(empty, name) {
			t.Errorf("%s: a package named %s can hold anything; name it after what it does.", f.path, name)
		}
	}
}

func TestExportedIsDocumented(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.isLibrary() || f.isGenerated() {
			continue
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && reachable(d) && !wellKnown[d.Name.Name] {
					t.Errorf("%s: %s is exported and says nothing about itself.", f.at(d), functionName(d))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					for _, name := range undocumented(d, spec) {
						t.Errorf("%s: %s is exported and says nothing about itself.", f.at(spec), name)
					}
				}
			}
		}
	}
}

// wellKnown are methods of interfaces that everybody knows.
var wellKnown = map[string]bool{
	"String": true, "GoString": true, "Error": true, "Unwrap": true, "Is": true, "As": true,
	"Read": true, "Write": true, "Close": true, "Seek": true, "ReadAt": true, "WriteAt": true,
	"MarshalJSON": true, "UnmarshalJSON": true, "MarshalText": true, "UnmarshalText": true,
	"Len": true, "Less": true, "Swap": true, "ServeHTTP": true, "RoundTrip": true, "LogValue": true,
}

// reachable reports whether others can call the function: methods of
// unexported types come under the doc of the interface they are for.
func reachable(d *ast.FuncDecl) bool {
	return d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type))
}

// undocumented returns the exported names of a type, const or var without a
// comment of their own or of their group. The values of an enumeration are
// documented by their type.
func undocumented(d *ast.GenDecl, spec ast.Spec) (names []string) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && (d.Doc == nil || d.Lparen.IsValid()) {
			names = append(names, s.Name.Name)
		}
	case *ast.ValueSpec:
		if d.Tok == token.CONST && d.Specs[0].(*ast.ValueSpec).Type != nil {
			return nil
		}
		for _, name := range s.Names {
			if name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
				names = append(names, name.Name)
			}
		}
	}
	return names
}
