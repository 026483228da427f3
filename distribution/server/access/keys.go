package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// key is one that tokens may be signed with.
type key struct {
	id        string // empty if it has none
	algorithm jose.SignatureAlgorithm
	public    any
}

const (
	maxKeys    = 100
	minRSABits = 2048
)

// algorithms are those that a token may be signed with: a key has exactly one, so
// that none can be taken for a key of another. None of them is symmetric.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}

// parseKeys reads public keys: a JSON Web Key Set (RFC 7517), one such key, or PEM
// blocks of keys and certificates. A secret one is an error: it has no business
// here.
func parseKeys(data []byte) (keys []key, err error) {
	data = bytes.TrimSpace(data)
	if bytes.HasPrefix(data, []byte{'{'}) {
		keys, err = parseKeySet(data)
	} else {
		keys, err = parsePEM(data)
	}
	switch {
	case err != nil:
		return nil, err
	case len(keys) == 0:
		return nil, errors.New("no RSA, P-256 or Ed25519 key for signatures in it")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	return keys, nil
}

func parseKeySet(data []byte) (keys []key, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	if set.Keys == nil {
		set.Keys = []json.RawMessage{data}
	}
	for i, text := range set.Keys {
		k, ok, err := parseJWK(text)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		if ok {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// parseJWK leaves out keys of other types and for other uses, as RFC 7517 (5)
// wants.
func parseJWK(text []byte) (k key, ok bool, err error) {
	var head struct{ Kty, Crv, Use, Alg, Kid, D, K string }
	if err := json.Unmarshal(text, &head); err != nil {
		return k, false, err
	}
	if head.D != "" || head.K != "" || head.Kty == "oct" {
		return k, false, fmt.Errorf("%q is a secret key: want the public one", head.Kid)
	}
	known := head.Kty == "RSA" || head.Kty == "EC" && head.Crv == "P-256" || head.Kty == "OKP" && head.Crv == "Ed25519"
	if !known || head.Use != "" && head.Use != "sig" {
		return k, false, nil
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(text, &jwk); err != nil {
		return k, false, err
	}
	if k, err = newKey(jwk.Key); err != nil {
		return k, false, err
	}
	k.id = jwk.KeyID
	return k, head.Alg == "" || head.Alg == string(k.algorithm), nil
}

func parsePEM(data []byte) (keys []key, err error) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return keys, nil
		}
		data = rest
		var public any
		switch block.Type {
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				public = cert.PublicKey
			}
		default:
			err = fmt.Errorf("a %s is no public key", block.Type)
		}
		var k key
		if err == nil {
			k, err = newKey(public)
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
}

func newKey(public any) (key, error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if p.N.BitLen() < minRSABits {
			return key{}, fmt.Errorf("an RSA key of %d bits, less than %d", p.N.BitLen(), minRSABits)
		}
		return key{algorithm: jose.RS256, public: p}, nil
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() {
			return key{algorithm: jose.ES256, public: p}, nil
		}
	case ed25519.PublicKey:
		return key{algorithm: jose.EdDSA, public: p}, nil
	}
	return key{}, errors.New("neither an RSA, nor a P-256, nor an Ed25519 key")
}
