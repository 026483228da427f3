package plan

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/program"
)

// Opening is the beginning of the plan that Compile will make, up to where it needs
// what is not known yet: the process can run it while its parent compiles the rest, on
// another processor, and then loads that. Of the facts it needs those of the machine,
// of control groups, and what the caller wants; not those of the bundle's files. It is nil
// where the process has to be started with the whole of its program, or the
// configuration is not one that Compile accepts.
func Opening(s *specs.Spec, facts *Facts) *Plan {
	c := newCompiler(s, facts)
	c.readMounts()
	c.namespaces()
	if !c.opens() || len(c.errs) > 0 {
		return nil
	}
	c.files()
	c.open()
	return c.plan
}

// opens says that the process begins with an Opening: it is cloned into its namespaces, and
// needs no files of control groups that it has to join, nor of mounts that its parent makes.
func (c *compiler) opens() bool {
	if c.exec || c.facts.AtOnce || c.fromHost() || c.plan.OnHost || c.treesFromParent() || c.cgroupFiles() > 0 {
		return false
	}
	for _, m := range c.list {
		if m.fromParent() {
			return false
		}
	}
	return true
}

// open adds the rest of the files, and begins. With an opening, it makes the namespaces, of
// which that of the network takes longest, and waits for the plan.
func (c *compiler) open() (joins []Step, trees map[string]FD) {
	joins, trees = c.joins(), c.parentTrees()
	c.step("", hold{First: len(c.plan.Files), Dumpable: c.dumpable()})
	if !c.opens() {
		return joins, trees
	}
	if rest := c.fresh &^ ownCall &^ c.plan.Namespaces; rest != 0 {
		c.step("linux.namespaces", unshare{rest})
	}
	c.step("", load{c.sync, c.program})
	return joins, trees
}

// load waits until the parent has written the rest of the program, and goes on with it.
type load struct{ Sync, Program FD }

func (o load) String() string { return fmt.Sprintf("wait for %v, load %v", o.Sync, o.Program) }

func (o load) lower(l *lowering) {
	l.await(o.Sync)
	l.b.Load(l.fd(o.Program))
}

// verifyOpening checks that the process that has begun with the opening can go on with
// the plan's program: its first calls are the same.
func (p *Plan) verifyOpening(im *program.Image) error {
	at := -1
	for i, s := range p.Steps {
		if _, ok := s.Op.(load); ok {
			at = i
		}
	}
	if at < 0 {
		return nil
	}
	first := *p
	first.Steps = p.Steps[:at+1]
	opening, err := first.Program()
	if err != nil {
		return err
	}
	whole := im.Names()
	for i, name := range opening.Names()[:len(opening.Names())-2] { // without the report and the end
		if name != whole[i] {
			return errors.New("the program does not begin as its opening")
		}
	}
	return nil
}
