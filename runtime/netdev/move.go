package netdev

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A Moved is an interface that has been moved. It must be closed, or undone.
type Moved struct {
	from, to  *socket
	home      *os.File // the namespace it came from
	was, is   link
	addresses []address
	forget    bool // there is nothing to undo
}

// Move moves the interface called name from our network namespace into another,
// where it is called newName, or the same where that is empty. It keeps its
// settings and its lasting addresses of global scope, and is up when Move
// returns. After an error it is where it was.
func Move(ns *os.File, name, newName string) (_ *Moved, err error) {
	if newName == "" {
		newName = name
	}
	m := &Moved{forget: true}
	// Our namespace is this thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("move network interface %q: %w", name, err), m.Undo())
		}
	}()
	if m.home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if m.from, err = dial(); err != nil {
		return nil, err
	}
	if m.to, err = dialIn(ns, m.home); err != nil {
		return nil, err
	}
	if m.was, err = m.from.link(name); err != nil {
		return nil, err
	}
	// Before it is down, as IPv6 addresses do not outlast that.
	if m.addresses, err = m.from.addresses(m.was.index); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	if m.is, err = move(m.from, m.to, ns, m.was, newName); err != nil {
		// The kernel moves first. A name that it then refuses leaves the
		// interface in the other namespace, under its own.
		m.forget = m.is.index == 0 || !m.to.has(m.is.index)
		return nil, err
	}
	m.forget = false
	return m, settle(m.to, m.was, m.is, m.addresses, true)
}

// Close lets go of an interface that stays where it is.
func (m *Moved) Close() {
	m.from.close()
	m.to.close()
	m.home.Close()
	m.from, m.to, m.forget = nil, nil, true
}

// Undo brings the interface back, as it was, and closes m. It works also when
// all processes in the other namespace have ended.
func (m *Moved) Undo() error {
	defer m.Close()
	if m.forget {
		return nil
	}
	back, err := move(m.to, m.from, m.home, m.is, m.was.name)
	if err == nil {
		err = settle(m.from, m.is, back, m.addresses, m.was.flags&unix.IFF_UP != 0)
	}
	if err != nil {
		return fmt.Errorf("bring network interface %q back: %w", m.was.name, err)
	}
	return nil
}

// move changes namespace and name of an interface at once, so that no other's
// name is in the way in between. It keeps its number if that is free: the caller
// has to know it, as the name may be a template (eth%d).
func move(from, to *socket, ns *os.File, l link, name string) (link, error) {
	used, err := to.indexes()
	if err != nil {
		return link{}, fmt.Errorf("list interfaces: %w", err)
	}
	is := link{index: l.index, name: name}
	if used[is.index] {
		for index := range used {
			is.index = max(is.index, index+1)
		}
	}
	body := linkBody(l.index, 0, 0)
	body = attribute32(body, unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
	body = attributeString(body, unix.IFLA_IFNAME, name)
	body = attribute32(body, unix.IFLA_NEW_IFINDEX, uint32(is.index)) // Linux 5.13
	_, err = from.do(unix.RTM_NEWLINK, 0, body)
	if errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("the other namespace has an interface called %q: %w", name, err)
	}
	return is, err
}

// settle gives an interface back what moving took from it.
func settle(s *socket, was, is link, addresses []address, up bool) error {
	for _, a := range addresses {
		if _, err := s.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.body(is.index, was.name, is.name)); err != nil {
			return fmt.Errorf("add address %v: %w", a, err)
		}
	}
	if !up {
		return nil
	}
	if _, err := s.do(unix.RTM_NEWLINK, 0, linkBody(is.index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}
