package runtimecli

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func completionCommand() command {
	return command{name: "completion", args: "bash|zsh|fish", short: "print a script for a shell's completion", min: 1, max: 1, stateless: true,
		flags: func(*flag.FlagSet) func(*call) (int, error) {
			return func(c *call) (int, error) {
				switch shell := c.args[0]; shell {
				case "zsh": // it can run bash's
					fmt.Println("autoload -U +X bashcompinit && bashcompinit")
					fallthrough
				case "bash":
					bashCompletion(os.Stdout)
				case "fish":
					fishCompletion(os.Stdout)
				default:
					return 1, fmt.Errorf("completion: %q: want bash, zsh or fish", shell)
				}
				return 0, nil
			}
		}}
}

// each calls f with every verb and its options, and first with "" and the
// global ones.
func each(f func(verb, short string, names bool, list []option)) {
	var g global
	f("", "", false, options(g.flags()))
	for _, c := range commands() {
		flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.flags(flags)
		f(c.name, c.short, strings.HasPrefix(c.args, "ID"), options(flags))
	}
}

func bashCompletion(w io.Writer) {
	var verbs, cases strings.Builder
	each(func(verb, _ string, names bool, list []option) {
		words := ""
		for _, o := range list {
			for _, name := range o.names {
				if len(name) > 1 {
					words += " --" + name
				}
			}
		}
		if verb == "" {
			fmt.Fprintf(&cases, "\t\"\") words=\"$verbs%s\" ;;\n", words)
			return
		}
		fmt.Fprintf(&verbs, " %s", verb)
		containers := ""
		if names {
			containers = " $(" + program + " list --quiet 2>/dev/null)"
		}
		fmt.Fprintf(&cases, "\t%s) words=\"%s\" ;;\n", verb, strings.TrimSpace(words+containers))
	})
	fmt.Fprintf(w, `_tare_runtime() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb= words= word verbs="%s"
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case " $verbs " in *" $word "*) verb=$word; break ;; esac
	done
	case $verb in
%s	esac
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _tare_runtime %s
`, strings.TrimSpace(verbs.String()), cases.String(), program)
}

func fishCompletion(w io.Writer) {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }
	each(func(verb, short string, names bool, list []option) {
		when := "__fish_use_subcommand"
		if verb != "" {
			fmt.Fprintf(w, "complete -c %s -n %s -f -a %s -d %s\n", program, when, verb, quote(short))
			when = quote("__fish_seen_subcommand_from " + verb)
		}
		if names {
			fmt.Fprintf(w, "complete -c %s -n %s -f -a '(%s list --quiet 2>/dev/null)'\n", program, when, program)
		}
		for _, o := range list {
			line := fmt.Sprintf("complete -c %s -n %s", program, when)
			for _, name := range o.names {
				kind := "-l"
				if len(name) == 1 {
					kind = "-s"
				}
				line += " " + kind + " " + name
			}
			if o.argument() != "" {
				line += " -r"
			}
			_, usage := flag.UnquoteUsage(o.Flag)
			fmt.Fprintln(w, line, "-d", quote(usage))
		}
	})
}
