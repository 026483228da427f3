package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/transfer"
)

const configLong = `Change the configuration of an image, or print it, if no change is asked for. The
image may be in the store, in a layout or on a registry; no layer is moved but to
a place that does not have it.

Fields with one value are set. Of --env and --label each NAME=VALUE replaces the
one of the same name, --port and --volume add; --remove FIELD=NAME takes one
away, and so does NAME- given to --env, --label, --port and --annotation. Each
--cmd and --entrypoint is one word, or a whole list in JSON. --clear FIELD empties
a field, before the others take effect. The names that umoci, buildah and crane
have for these flags work, too.

The change gets an entry in the image's history, unless --no-history says no; then
the time of creation stays as well.

`

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config [flags] IMAGE",
		Short: "Change the configuration of an image, or print it",
		Long:  configLong + transportsHelp,
		Example: `  tare config debian:12
  tare config --env LANG=C.UTF-8 --label team=web --tag app:v2 app:v1
  tare config --entrypoint '["/srv/app", "--serve"]' --clear cmd --port 8080/tcp app:v1
  tare config --user 1000:1000 --remove env=DEBUG docker://registry.example.com/team/app:v1
  tare config --format json app:v1 | jq .config.Env`,
		Args: arguments(1, 1, "IMAGE"),
	}
	var format string
	c := configEdit{values: map[string]*[]string{}}
	for _, f := range mutate.Fields() {
		if f.Short == "created" {
			continue // declared with the flags that all edits share
		}
		c.values[f.Short] = cmd.Flags().StringArray(f.Short, nil, usageOf(f))
	}
	c.annotations = cmd.Flags().StringArray("annotation", nil, "annotation of the manifest: `NAME=VALUE`, or NAME- to remove it")
	c.remove = cmd.Flags().StringArray("remove", nil, "remove a name from a field: `FIELD=NAME`")
	c.clear = cmd.Flags().StringArray("clear", nil, "empty a `FIELD`; history and annotations are fields here, too")
	completeChoice(cmd, "clear", append(mutate.FieldNames(), "history", "annotations")...)
	c.noHistory = cmd.Flags().Bool("no-history", false, "no entry in the history, and no other time of creation")
	c.createdBy = cmd.Flags().String("history-created-by", "", "what the entry in the history says has made it: `TEXT`")
	c.comment = cmd.Flags().String("history-comment", "", "a comment in the history: `TEXT`")
	c.author = cmd.Flags().String("history-author", "", "the author in the history: `TEXT`")
	c.historyTime = cmd.Flags().String("history-created", "", "the time in the history, if not that of the change: `TIME`")
	formatFlag(cmd, &format, "text", "json", "raw")
	c.flags = a.declareEditFlags(cmd)
	alsoCalled(cmd.Flags(), configFlagNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !c.asked() {
			return c.print(cmd, args[0], format)
		}
		if cmd.Flags().Changed("format") {
			return usageError{fmt.Errorf("--format is for printing a configuration, not for changing it")}
		}
		change, err := c.change()
		if err != nil {
			return err
		}
		return c.flags.with(cmd, "Changing "+args[0], func(e *engine.Engine, o engine.EditOptions) (transfer.Result, error) {
			return e.EditImage(cmd.Context(), args[0], o, func(ctx context.Context, d *engine.Edit, img *image.Image) (v1.Descriptor, error) {
				return mutate.Apply(ctx, d, &img.Descriptor, change)
			})
		})
	}
	return cmd
}

// configFlagNames are what umoci, buildah and crane call the flags.
var configFlagNames = map[string]string{
	"config.user": "user", "config.exposedports": "port", "config.env": "env", "config.entrypoint": "entrypoint", "config.cmd": "cmd",
	"config.volume": "volume", "config.workingdir": "workdir", "config.label": "label", "config.stopsignal": "stop-signal",
	"platform.os": "os", "platform.arch": "architecture", "platform.variant": "variant", "manifest.annotation": "annotation",
	"history.created_by": "history-created-by", "history.comment": "history-comment", "history.author": "history-author",
	"history.created": "history-created",
	"arch":            "architecture", "workingdir": "workdir", "created-by": "history-created-by", "exposed-ports": "port",
}

func usageOf(f mutate.Field) string {
	name := map[mutate.Shape]string{mutate.Words: "WORD", mutate.Pairs: "NAME=VALUE", mutate.PairsMap: "NAME=VALUE"}[f.Shape]
	usage := f.Usage
	if name != "" && strings.HasSuffix(usage, ": NAME=VALUE") {
		return strings.TrimSuffix(usage, "NAME=VALUE") + "`NAME=VALUE`"
	}
	return usage + ": `" + cmp.Or(name, "VALUE") + "`"
}

// configEdit is what the flags ask for.
type configEdit struct {
	flags                                   editFlags
	values                                  map[string]*[]string // by the field's short name
	annotations, remove, clear              *[]string
	noHistory                               *bool
	createdBy, comment, author, historyTime *string
}

// asked says whether a change was asked for.
func (c *configEdit) asked() bool {
	n := len(*c.annotations) + len(*c.remove) + len(*c.clear) + len(*c.flags.created) + len(*c.createdBy) + len(*c.comment) + len(*c.author) + len(*c.flags.tag)
	for _, v := range c.values {
		n += len(*v)
	}
	return n > 0
}

// changed names the fields that are, for the history.
func (c *configEdit) changed() (names []string) {
	touched := map[string]bool{}
	for _, text := range append(append([]string{}, *c.clear...), *c.remove...) {
		name, _, _ := strings.Cut(text, "=")
		if f, err := findField(name); err == nil {
			name = f.Short
		}
		touched[name] = true
	}
	for _, f := range mutate.Fields() {
		if v := c.values[f.Short]; touched[f.Short] || v != nil && len(*v) > 0 {
			names = append(names, f.Short)
		}
	}
	if len(names) == 0 {
		return []string{"no field"}
	}
	return names
}

// change makes a change of the flags: what is cleared comes first, then what is
// removed, then what is set.
func (c *configEdit) change() (mutate.Change, error) {
	change := mutate.Change{}
	var edits []mutate.Edit
	for _, name := range *c.clear {
		switch strings.ToLower(name) {
		case "history":
			change.NoHistory = true
			continue
		case "annotations", "annotation", "manifest.annotation", "manifest.annotations":
			change.NoAnnotations = true
			continue
		}
		f, err := findField(name)
		if err != nil {
			return change, usageError{fmt.Errorf("--clear: %w, history, annotations", err)}
		}
		edits = append(edits, f.Clear())
	}
	for _, text := range *c.remove {
		name, key, _ := strings.Cut(text, "=")
		f, err := findField(name)
		if err != nil {
			return change, usageError{fmt.Errorf("--remove: %w", err)}
		}
		e, err := f.Remove(key)
		if err != nil {
			return change, usageError{fmt.Errorf("--remove: %w", err)}
		}
		edits = append(edits, e)
	}
	set, err := c.set()
	if err != nil {
		return change, err
	}
	if change.Annotations, err = annotationsOf(*c.annotations); err != nil {
		return change, err
	}
	edits = append(edits, set...)
	change.Config = func(cfg *v1.Image) {
		for _, edit := range edits {
			edit(cfg)
		}
	}
	return change, c.history(&change)
}

// findField takes umoci's names for fields, too.
func findField(name string) (mutate.Field, error) {
	return mutate.FindField(cmp.Or(configFlagNames[name], configFlagNames[strings.TrimSuffix(name, "s")], name))
}

func (c *configEdit) set() (edits []mutate.Edit, err error) {
	for _, f := range mutate.Fields() {
		values := c.values[f.Short]
		if values == nil || len(*values) == 0 {
			continue
		}
		put := []string{}
		for _, v := range *values {
			if name, ok := strings.CutSuffix(v, "-"); ok && removable(f, v) {
				e, err := f.Remove(name)
				if err != nil {
					return nil, usageError{err}
				}
				edits = append(edits, e)
				continue
			}
			put = append(put, v)
		}
		if len(put) == 0 {
			continue
		}
		e, err := f.Put(put...)
		if err != nil {
			return nil, usageError{fmt.Errorf("--%s: %w", f.Short, err)}
		}
		edits = append(edits, e)
	}
	return edits, nil
}

// removable says whether a value with a minus at its end is a name to remove, as
// buildah has it: a path may well end so.
func removable(f mutate.Field, value string) bool {
	pairs := f.Shape == mutate.Pairs || f.Shape == mutate.PairsMap
	return len(value) > 1 && (pairs && !strings.Contains(value, "=") || f.Short == "port" || f.Short == "os-feature")
}

// history adds the entry of the change.
func (c *configEdit) history(change *mutate.Change) error {
	t, err := c.flags.time()
	if err != nil {
		return err
	}
	if !*c.noHistory || *c.flags.created != "" {
		change.Created = &t
	}
	if *c.noHistory {
		return nil
	}
	if *c.historyTime != "" {
		if t, err = mutate.ParseTime(*c.historyTime); err != nil {
			return usageError{fmt.Errorf("--history-created: %w", err)}
		}
	}
	change.History = []v1.History{{Created: &t, CreatedBy: cmp.Or(*c.createdBy, "tare config: "+strings.Join(c.changed(), ", ")), Comment: *c.comment, Author: *c.author}}
	return nil
}

// print prints the configuration.
func (c *configEdit) print(cmd *cobra.Command, name, format string) error {
	f := contentsFlags{app: c.flags.app, platform: c.flags.platform, registry: c.flags.registry}
	return f.open(cmd, []string{name}, func(all []*engine.Contents) error {
		raw, err := all[0].ConfigBytes(cmd.Context())
		if err != nil {
			return err
		}
		switch format {
		case "raw":
			_, err := f.app.stdout.Write(raw)
			return err
		case "json":
			return printJSON(f.app.stdout, json.RawMessage(raw))
		}
		out := bufio.NewWriter(f.app.stdout)
		printConfig(out, all[0].Image.Config, time.Now())
		return out.Flush()
	})
}

// printConfig prints a configuration for people: what was written by others.
func printConfig(w io.Writer, cfg v1.Image, now time.Time) {
	var rows fields
	for _, f := range mutate.Fields() {
		values := f.Values(&cfg)
		if f.Shape == mutate.Words {
			values = oneLine(values)
		}
		for i, v := range values {
			rows = append(rows, [2]string{[]string{f.Short, ""}[min(i, 1)], v})
		}
	}
	rows.print(w)
	if len(cfg.History) > 0 {
		fmt.Fprintln(w, "\nhistory, the oldest first")
	}
	for _, h := range cfg.History {
		created := "-"
		if h.Created != nil {
			created = agoText(*h.Created, now)
		}
		mark := "layer"
		if h.EmptyLayer {
			mark = "-"
		}
		fmt.Fprintf(w, "  %-12s  %-5s  %s\n", created, mark, shorten(printable(cmp.Or(h.CreatedBy, h.Comment, "-")), 100))
	}
}
