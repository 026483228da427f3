package runtimecli

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// program is our name in messages.
const program = "tare-runtime"

// The help has runc's form, which scripts and its own tests look at.

func mainHelp(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, `NAME:
   %[1]s - Open Container Initiative runtime

   It runs containers from bundles, directories with a config.json and a root
   file system, with runc's command line. "tare explain BUNDLE" prints what it
   would do.

USAGE:
   %[1]s [global options] command [command options] [arguments...]

COMMANDS:
`, program)
	for _, c := range commands() {
		fmt.Fprintf(w, "   %-11s %s\n", c.name, c.short)
	}
	fmt.Fprintf(w, "   %-11s %s\n\nGLOBAL OPTIONS:\n", "help", "print this, or the help of a command")
	printFlags(w, flags)
}

func (cmd command) help(w io.Writer) {
	flags := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	cmd.flags(flags)
	fmt.Fprintf(w, "NAME:\n   %[1]s %[2]s - %[3]s\n\nUSAGE:\n   %[1]s %[2]s [command options] %[4]s\n", program, cmd.name, cmd.short, cmd.args)
	if len(options(flags)) > 0 {
		fmt.Fprint(w, "\nOPTIONS:\n")
		printFlags(w, flags)
	}
}

// An option is a flag with all its names.
type option struct {
	names []string
	*flag.Flag
}

// options lists the flags of a set; those that set the same variable are one.
func options(flags *flag.FlagSet) []option {
	var list []option
	flags.VisitAll(func(f *flag.Flag) {
		for i, o := range list {
			if reflect.TypeOf(f.Value).Comparable() && o.Value == f.Value {
				list[i].names = append(o.names, f.Name)
				if !strings.HasPrefix(f.Usage, "short for") {
					list[i].Flag = f
				}
				return
			}
		}
		list = append(list, option{[]string{f.Name}, f})
	})
	return list
}

// argument is what the help calls the option's value, empty for a switch.
func (o option) argument() string {
	if b, ok := o.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		return ""
	}
	name, _ := flag.UnquoteUsage(o.Flag)
	return name
}

func (o option) String() string {
	s := ""
	longFirst := func(a, b string) int { return cmp.Compare(len(b), len(a)) }
	for _, name := range slices.SortedFunc(slices.Values(o.names), longFirst) {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		if s != "" {
			s += ", "
		}
		s += dashes + name
		if a := o.argument(); a != "" {
			s += " " + a
		}
	}
	return s
}

func printFlags(w io.Writer, flags *flag.FlagSet) {
	for _, o := range options(flags) {
		_, usage := flag.UnquoteUsage(o.Flag)
		if d := o.DefValue; d != "" && d != "false" && d != "0" {
			usage += fmt.Sprintf(" (default: %s)", d)
		}
		fmt.Fprintf(w, "   %-32s %s\n", o, usage)
	}
}
