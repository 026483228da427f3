package plan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/runtime/plan"
)

// What a process begins with, before the bundle is looked at, is how the plan that is made
// afterwards begins: the same namespaces, files and steps, up to where it loads the rest.
func TestOpeningBeginsThePlan(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.json")
	engines, eerr := filepath.Glob("../../test/engines/configs/*st.json")
	if err != nil || eerr != nil || len(inputs) == 0 || len(engines) == 0 {
		t.Fatalf("no input: %v, %v", err, eerr)
	}
	opened := 0
	for _, path := range append(inputs, engines...) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, v1 := range []bool{false, true} {
			s := decode(t, data)
			f := facts(s)
			if v1 {
				version1(f)
			}
			whole, err := plan.Compile(s, f)
			if err != nil {
				continue
			}
			f.Sources, f.Mountpoints, f.Home, f.Kcore = nil, nil, "", false
			opening := plan.Opening(s, f)
			loads := slices.ContainsFunc(whole.Steps, func(x plan.Step) bool { return strings.Contains(x.Op.String(), "load <program>") })
			if (opening != nil) != loads {
				t.Errorf("%s: there is an opening: %v; the plan has one: %v", path, opening != nil, loads)
			}
			if opening == nil {
				continue
			}
			opened++
			n := len(opening.Steps)
			if opening.Namespaces != whole.Namespaces || !slices.Equal(describe(opening), describe(whole)[:len(opening.Files)+n]) {
				t.Errorf("%s: begins as\n%s\nthe plan as\n%s", path, strings.Join(describe(opening), "\n"), strings.Join(describe(whole), "\n"))
			}
			if last := opening.Steps[n-1].Op.String(); !strings.HasSuffix(last, "load <program>") {
				t.Errorf("%s: the opening ends with %s", path, last)
			}
		}
	}
	if opened < 10 {
		t.Errorf("%d openings", opened)
	}
}

// describe lists a plan's files and steps.
func describe(p *plan.Plan) (lines []string) {
	for _, f := range p.Files {
		lines = append(lines, f.String())
	}
	for _, s := range p.Steps {
		lines = append(lines, s.Op.String()+" # "+s.Field)
	}
	return lines
}

// Nothing but a process that is cloned into its namespaces, and needs no files that are
// made for it by then, begins before its plan is there.
func TestNoOpening(t *testing.T) {
	for name, change := range map[string]func(*plan.Facts){
		"at once":            func(f *plan.Facts) { f.AtOnce = true },
		"joins group files":  func(f *plan.Facts) { version1(f); f.CgroupsBeside = false },
		"without privileges": func(f *plan.Facts) { f.Host.Caps, f.Host.UID = 0, 1000 },
	} {
		data, err := os.ReadFile("testdata/default.json")
		if err != nil {
			t.Fatal(err)
		}
		s := decode(t, data)
		f := facts(s)
		change(f)
		if p := plan.Opening(s, f); p != nil {
			t.Errorf("%s: %v", name, describe(p))
		}
	}
}
