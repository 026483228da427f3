package runtimecli

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func manCommand() command {
	return command{name: "man", short: "print the manual page", min: 0, max: 0,
		flags: func(*flag.FlagSet) func(*call) (int, error) {
			return func(*call) (int, error) {
				manual(os.Stdout)
				return 0, nil
			}
		}}
}

// roff keeps text from being read as requests and escapes of man(7).
var roff = strings.NewReplacer(`\`, `\e`, "…", "...", `-`, `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'")

// manual writes the manual page in man(7), from the same tables as the help.
func manual(w io.Writer) {
	fmt.Fprintf(w, `.TH TARE\-RUNTIME 8 "" "tare" ""
.SH NAME
%[1]s \- run containers from OCI bundles
.SH SYNOPSIS
.B %[1]s
[global options]
.I command
[options] [arguments]
.SH DESCRIPTION
Creates and runs containers from bundles: directories with a config.json and a root
file system, as the Runtime Specification of the Open Container Initiative has them.
The command line is runc's, so that container engines can use it in runc's place.
.B tare explain
prints what a bundle is compiled to, before anything runs.
.SH GLOBAL OPTIONS
`, roff.Replace(program))
	var g global
	manualOptions(w, g.flags())
	fmt.Fprintln(w, ".SH COMMANDS")
	for _, c := range commands() {
		fmt.Fprintf(w, ".SS %s %s\n%s.\n", c.name, roff.Replace(c.args), roff.Replace(c.short))
		flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.flags(flags)
		manualOptions(w, flags)
	}
	fmt.Fprint(w, `.SH EXIT STATUS
0 on success, 1 on errors.
.B run
and
.B exec
end with the status of the container's program, or 128 and the number of the signal that ended it;
.B exec
with 255 where it could not run the program.
.SH SEE ALSO
.BR tare (1),
.BR runc (8)
`)
}

func manualOptions(w io.Writer, flags *flag.FlagSet) {
	for _, o := range options(flags) {
		_, usage := flag.UnquoteUsage(o.Flag)
		fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff.Replace(o.String()), roff.Replace(usage))
	}
}
