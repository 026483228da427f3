package storage

import (
	"crypto/rand"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The keys drawn in the package comment.

func fileName(d digest.Digest) string { return string(d.Algorithm()) + "-" + d.Encoded() }

// fromFileName reverses fileName; false for anything else, which a directory
// listing may hold if somebody put it there.
func fromFileName(s string) (digest.Digest, bool) {
	algorithm, encoded, ok := strings.Cut(s, "-")
	d := digest.Digest(algorithm + ":" + encoded)
	return d, ok && d.Validate() == nil
}

func blobDir(d digest.Digest) string {
	hex := d.Encoded()
	return "blobs/" + string(d.Algorithm()) + "/" + hex[:2] + "/" + hex
}

func dataKey(d digest.Digest) string { return blobDir(d) + "/data" }

func inDir(d digest.Digest) string { return blobDir(d) + "/in" }

func inKey(d digest.Digest, repo string) string {
	return inDir(d) + "/" + strings.ReplaceAll(repo, "/", ",")
}

// fromInName reverses the last element of inKey.
func fromInName(name string) string { return strings.ReplaceAll(name, ",", "/") }

func repoDir(repo string) string { return strings.TrimSuffix("repositories/"+repo, "/") }

func manifestDir(repo string) string { return repoDir(repo) + "/_manifests" }

func manifestKey(repo string, d digest.Digest) string { return manifestDir(repo) + "/" + fileName(d) }

// pendingDir has the manifests that are about to be stored: what they name is
// in use already. Several may push the same, so each adds a number.
func pendingDir(repo string) string { return repoDir(repo) + "/_pending" }

func pendingKey(repo string, d digest.Digest) string {
	return pendingDir(repo) + "/" + fileName(d) + "." + rand.Text()
}

func fromPendingName(name string) (digest.Digest, bool) {
	name, _, _ = strings.Cut(name, ".")
	return fromFileName(name)
}

func tagDir(repo string) string { return repoDir(repo) + "/_tags" }

func tagKey(repo, tag string) string { return tagDir(repo) + "/" + tag }

func referrerDir(repo string, subject digest.Digest) string {
	return repoDir(repo) + "/_referrers/" + fileName(subject)
}

func referrerKey(repo string, subject, d digest.Digest) string {
	return referrerDir(repo, subject) + "/" + fileName(d)
}

// quarantineKey is where a rotten blob's bytes go. It may rot again.
func quarantineKey(d digest.Digest) string { return "quarantine/" + fileName(d) + "." + rand.Text() }

const sessionDir = "sessions"

// rehashDir has uploads that are being read again, for some moments.
const rehashDir = "rehash"

func rehashKey(id string) string { return rehashDir + "/" + id }

func sessionKey(id string) string { return sessionDir + "/" + id }
