package storagetest

import (
	"cmp"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// No update is lost among others.
func (s *suite) testUpdate() {
	const workers, each = 4, 10
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range each {
				err := s.Update(s.ctx, "dir/counter", 100, func(old []byte) ([]byte, error) {
					n, err := strconv.Atoi(cmp.Or(string(old), "0"))
					return strconv.AppendInt(nil, int64(n)+1, 10), err
				})
				if err != nil {
					s.Error(err)
				}
			}
		})
	}
	group.Wait()
	s.want(s.read("dir/counter"), strconv.Itoa(workers*each))
	refused := errors.New("refused")
	s.wantErr(s.Update(s.ctx, "dir/counter", 100, func([]byte) ([]byte, error) { return nil, refused }), refused)
	s.want(s.read("dir/counter"), strconv.Itoa(workers*each))
	s.wantErr(s.Update(s.ctx, "dir/counter", 1, nil), distribution.ErrTooLarge)
}

// A lock has one holder at a time, and can be had again and again.
func (s *suite) testLock() {
	var holders, had atomic.Int32
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 25 {
				release, err := s.Lock(s.ctx, "name")
				if errors.Is(err, storage.ErrBusy) {
					continue
				}
				if err != nil {
					s.Error(err)
					return
				}
				if holders.Add(1) > 1 {
					s.Error("two holders")
				}
				had.Add(1)
				holders.Add(-1)
				release()
			}
		})
	}
	group.Wait()
	if had.Load() == 0 {
		s.Error("nobody had it")
	}
	release, err := s.Lock(s.ctx, "name")
	if err != nil {
		s.Fatal(err)
	}
	_, err = s.Lock(s.ctx, "name")
	s.wantErr(err, storage.ErrBusy)
	other, err := s.Lock(s.ctx, "other")
	if err != nil {
		s.Fatal(err)
	}
	other()
	release()
}
