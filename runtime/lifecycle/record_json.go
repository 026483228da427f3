package lifecycle

import (
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/quickjson"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/rdt"
)

// appendJSON appends the record as JSON, the same as encoding/json would.
func (r *Record) appendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"version":`...), int64(r.Version), 10)
	b = quickjson.AppendString(append(b, `,"ociVersion":`...), r.OCIVersion)
	b = quickjson.AppendString(append(b, `,"id":`...), r.ID)
	if r.PID != 0 {
		b = strconv.AppendInt(append(b, `,"pid":`...), int64(r.PID), 10)
	}
	if r.StartTime != 0 {
		b = strconv.AppendUint(append(b, `,"startTime":`...), r.StartTime, 10)
	}
	b = quickjson.AppendString(append(b, `,"bundle":`...), r.Bundle)
	b = quickjson.AppendString(append(b, `,"rootfs":`...), r.Rootfs)
	b = quickjson.AppendString(append(b, `,"created":`...), r.Created.Format(time.RFC3339Nano))
	b = strconv.AppendInt(append(b, `,"uid":`...), int64(r.UID), 10)
	if len(r.Annotations) > 0 {
		b = quickjson.AppendMap(append(b, `,"annotations":`...), r.Annotations)
	}
	if len(r.Cgroups) > 0 {
		b = quickjson.AppendMap(append(b, `,"cgroups":`...), r.Cgroups)
	}
	if r.Unit != "" {
		b = quickjson.AppendString(append(b, `,"unit":`...), r.Unit)
	}
	if r.Creating {
		b = append(b, `,"creating":true`...)
	}
	if r.SharedPID {
		b = append(b, `,"sharedPid":true`...)
	}
	if r.HostRoot != 0 {
		b = strconv.AppendUint(append(b, `,"hostRoot":`...), r.HostRoot, 10)
	}
	if r.Resctrl != nil {
		b = appendGroup(append(b, `,"resctrl":`...), r.Resctrl)
	}
	if r.NoNewKeyring {
		b = append(b, `,"noNewKeyring":true`...)
	}
	if r.Listener != nil {
		b = appendListener(append(b, `,"seccompListener":`...), r.Listener)
	}
	b = appendArray(b, "tail", r.Tail, appendTailStep)
	b = appendArray(b, "poststart", r.Poststart, appendHook)
	b = appendArray(b, "poststop", r.Poststop, appendHook)
	return append(b, '}')
}

// appendArray appends a field that is not there where it is empty.
func appendArray[T any](b []byte, name string, list []T, f func([]byte, *T) []byte) []byte {
	for i := range list {
		if i == 0 {
			b = append(append(append(b, `,"`...), name...), `":[`...)
		} else {
			b = append(b, ',')
		}
		b = f(b, &list[i])
	}
	if len(list) > 0 {
		b = append(b, ']')
	}
	return b
}

func appendGroup(b []byte, g *rdt.Group) []byte {
	b = quickjson.AppendString(append(b, `{"class":`...), g.Class)
	if g.Monitor != "" {
		b = quickjson.AppendString(append(b, `,"monitor":`...), g.Monitor)
	}
	if g.Made {
		b = append(b, `,"made":true`...)
	}
	return append(b, '}')
}

func appendListener(b []byte, l *plan.Listener) []byte {
	b = quickjson.AppendString(append(b, `{"path":`...), l.Path)
	if l.Metadata != "" {
		b = quickjson.AppendString(append(b, `,"metadata":`...), l.Metadata)
	}
	return append(b, '}')
}

func appendTailStep(b []byte, s *plan.TailStep) []byte {
	b = strconv.AppendUint(append(b, `{"address":`...), s.Address, 10)
	b = quickjson.AppendString(append(b, `,"text":`...), s.Text)
	if s.Field != "" {
		b = quickjson.AppendString(append(b, `,"field":`...), s.Field)
	}
	return append(b, '}')
}

func appendHook(b []byte, h *specs.Hook) []byte {
	b = quickjson.AppendString(append(b, `{"path":`...), h.Path)
	if len(h.Args) > 0 {
		b = quickjson.AppendStrings(append(b, `,"args":`...), h.Args)
	}
	if len(h.Env) > 0 {
		b = quickjson.AppendStrings(append(b, `,"env":`...), h.Env)
	}
	if h.Timeout != nil {
		b = strconv.AppendInt(append(b, `,"timeout":`...), int64(*h.Timeout), 10)
	}
	return append(b, '}')
}

func decodeRecord(d *quickjson.Decoder, r *Record) {
	for key, ok := d.Object(); ok; key, ok = d.Next() {
		switch key {
		case "version":
			quickjson.Signed(d, &r.Version)
		case "ociVersion":
			quickjson.String(d, &r.OCIVersion)
		case "id":
			quickjson.String(d, &r.ID)
		case "pid":
			quickjson.Signed(d, &r.PID)
		case "startTime":
			quickjson.Unsigned(d, &r.StartTime)
		case "bundle":
			quickjson.String(d, &r.Bundle)
		case "rootfs":
			quickjson.String(d, &r.Rootfs)
		case "created":
			quickjson.Text(d, &r.Created)
		case "uid":
			quickjson.Signed(d, &r.UID)
		case "unit":
			quickjson.String(d, &r.Unit)
		case "annotations":
			quickjson.Map(d, &r.Annotations, quickjson.String)
		case "cgroups":
			quickjson.Map(d, &r.Cgroups, quickjson.String)
		case "creating":
			quickjson.Bool(d, &r.Creating)
		case "sharedPid":
			quickjson.Bool(d, &r.SharedPID)
		case "hostRoot":
			quickjson.Unsigned(d, &r.HostRoot)
		case "noNewKeyring":
			quickjson.Bool(d, &r.NoNewKeyring)
		case "resctrl":
			quickjson.Pointer(d, &r.Resctrl, decodeGroup)
		case "seccompListener":
			quickjson.Pointer(d, &r.Listener, decodeListener)
		case "tail":
			quickjson.Slice(d, (*[]plan.TailStep)(&r.Tail), decodeTailStep)
		case "poststart":
			quickjson.Slice(d, &r.Poststart, decodeHook)
		case "poststop":
			quickjson.Slice(d, &r.Poststop, decodeHook)
		default:
			d.Skip()
		}
		if d.Failed(key) {
			return
		}
	}
}

func decodeGroup(d *quickjson.Decoder, g *rdt.Group) {
	for key, ok := d.Object(); ok; key, ok = d.Next() {
		switch key {
		case "class":
			quickjson.String(d, &g.Class)
		case "monitor":
			quickjson.String(d, &g.Monitor)
		case "made":
			quickjson.Bool(d, &g.Made)
		default:
			d.Skip()
		}
		if d.Failed(key) {
			return
		}
	}
}

func decodeListener(d *quickjson.Decoder, l *plan.Listener) {
	for key, ok := d.Object(); ok; key, ok = d.Next() {
		switch key {
		case "path":
			quickjson.String(d, &l.Path)
		case "metadata":
			quickjson.String(d, &l.Metadata)
		default:
			d.Skip()
		}
		if d.Failed(key) {
			return
		}
	}
}

func decodeTailStep(d *quickjson.Decoder, s *plan.TailStep) {
	for key, ok := d.Object(); ok; key, ok = d.Next() {
		switch key {
		case "address":
			quickjson.Unsigned(d, &s.Address)
		case "text":
			quickjson.String(d, &s.Text)
		case "field":
			quickjson.String(d, &s.Field)
		default:
			d.Skip()
		}
		if d.Failed(key) {
			return
		}
	}
}

func decodeHook(d *quickjson.Decoder, h *specs.Hook) {
	for key, ok := d.Object(); ok; key, ok = d.Next() {
		switch key {
		case "path":
			quickjson.String(d, &h.Path)
		case "args":
			quickjson.Slice(d, &h.Args, quickjson.String)
		case "env":
			quickjson.Slice(d, &h.Env, quickjson.String)
		case "timeout":
			quickjson.Pointer(d, &h.Timeout, quickjson.Signed)
		default:
			d.Skip()
		}
		if d.Failed(key) {
			return
		}
	}
}

// appendState appends the state as runtime.md has it ("State"), which is what
// hooks read.
func appendState(b []byte, s *specs.State) []byte {
	b = quickjson.AppendString(append(b, `{"ociVersion":`...), s.Version)
	b = quickjson.AppendString(append(b, `,"id":`...), s.ID)
	b = quickjson.AppendString(append(b, `,"status":`...), string(s.Status))
	b = strconv.AppendInt(append(b, `,"pid":`...), int64(s.Pid), 10)
	b = quickjson.AppendString(append(b, `,"bundle":`...), s.Bundle)
	if len(s.Annotations) > 0 {
		b = quickjson.AppendMap(append(b, `,"annotations":`...), s.Annotations)
	}
	return append(b, '}')
}

// AppendJSON appends what the state verb prints of the container: the
// specification's state, and what runc adds to it.
func (c *Container) AppendJSON(b []byte, owner string) []byte {
	s := c.State()
	b = appendState(b, &s)
	b = quickjson.AppendString(append(b[:len(b)-1], `,"rootfs":`...), c.Rootfs)
	b = quickjson.AppendString(append(b, `,"created":`...), c.Created.Format(time.RFC3339Nano))
	return append(quickjson.AppendString(append(b, `,"owner":`...), owner), '}')
}
