package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const tagsOfEach = 10

// many fills the registry with repositories of ten tags each, all of one image, starts
// it anew, and lists them.
func (l *load) many(repositories int, restart func() (*server, error)) {
	l.fill(repositories)
	if l.err != nil {
		return
	}
	l.server.stop()
	began := time.Now()
	l.do(func() (err error) {
		s, err := restart()
		if err == nil {
			l.server = s
		}
		return err
	})
	l.do(func() error { return l.list("/v2/", nil) })
	name := fmt.Sprintf("%d repositories: ", repositories)
	l.add(name+"start, ms", float64(time.Since(began).Microseconds())/1e3)
	l.memoryOf(name+"idle memory, MB", "VmRSS")
	l.do(l.forgetPeak)
	took, cpu := l.timed(func() { l.catalog(repositories) })
	l.add(name+"list all, s", took.Seconds())
	l.add(name+"list all, CPU s", cpu.Seconds())
	l.memoryOf(name+"list all, peak MB", "VmHWM")
	took, _ = l.timed(func() { l.tags(repositories) })
	l.add(name+"list tags of one, ms", float64(took.Microseconds())/1e3/float64(min(repositories, tagLists)))
}

func (l *load) fill(repositories int) {
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`,
		manifestType, digest.FromBytes(config), len(config))
	var next atomic.Int64
	var group sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		group.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(repositories) {
					return
				}
				repo := manyName(int(i))
				err := l.pushBlob(repo, config)
				for tag := 0; tag < tagsOfEach && err == nil; tag++ {
					_, err = l.send(http.MethodPut, fmt.Sprintf("%s/v2/%s/manifests/v%d", l.url, repo, tag), manifestType, manifest, http.StatusCreated)
				}
				if err != nil {
					mu.Lock()
					l.do(func() error { return err })
					mu.Unlock()
					return
				}
			}
		})
	}
	group.Wait()
}

func manyName(i int) string { return fmt.Sprintf("many/team%02d/app%05d", i%50, i) }

// catalog lists all repositories, a thousand at a time.
func (l *load) catalog(want int) {
	l.do(func() error {
		found, last := 0, ""
		for {
			var page struct{ Repositories []string }
			if err := l.list("/v2/_catalog?n=1000&last="+last, &page); err != nil {
				return err
			}
			if len(page.Repositories) == 0 {
				break
			}
			found, last = found+len(page.Repositories), page.Repositories[len(page.Repositories)-1]
		}
		if found < want {
			return fmt.Errorf("%d repositories are listed, want %d", found, want)
		}
		return nil
	})
}

// tagLists is how many repositories are asked for their tags.
const tagLists = 500

func (l *load) tags(repositories int) {
	for i := range min(repositories, tagLists) {
		l.do(func() error {
			var page struct{ Tags []string }
			err := l.list("/v2/"+manyName(i)+"/tags/list", &page)
			if err == nil && len(page.Tags) != tagsOfEach {
				err = fmt.Errorf("%s has %d tags", manyName(i), len(page.Tags))
			}
			return err
		})
	}
}

// list reads an answer that is JSON.
func (l *load) list(path string, into any) error {
	resp, err := http.Get(l.url + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(text, into)
	}
	return err
}
