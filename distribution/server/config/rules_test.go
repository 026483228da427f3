package config

import "testing"

func TestCheckRetention(t *testing.T) {
	for text, want := range map[string]string{
		"[[retention]]\nrepositories=['a/**']\nkeep-newest=3\nuntagged='7d'": "",
		"[[retention]]\nrepositories=['a/**']\nkeep-younger='30d'":           "",
		"[[retention]]\nrepositories=['a/**']":                               "retention rule 1: needs keep-newest",
		"[[retention]]\nkeep-newest=3":                                       "needs repositories",
		"[[retention]]\nrepositories=['a']\nkeep-newest=-1":                  "0 or more",
		"[[retention]]\nrepositories=['a']\nkeep-tags=['v*']":                "keep-newest (0 for none)",
		"[[retention]]\nrepositories=['a']\nkeep-newest=1\nkeep-tags=['']":   "bad pattern",
	} {
		checkText(t, text, want)
	}
}

// The first rule that covers a repository counts.
func TestRetentionOf(t *testing.T) {
	c, err := Parse("x", []byte("[[retention]]\nrepositories=['a/*']\nkeep-newest=0\nkeep-tags=['v*']\n[[retention]]\nrepositories=['**']\nuntagged='9d'"))
	if err != nil {
		t.Fatal(err)
	}
	if r := c.RetentionOf("a/b"); r.KeepNewest != 0 || !r.KeepTag("v1") || r.KeepTag("x") {
		t.Errorf("%+v", r)
	}
	if r := c.RetentionOf("a/b/c"); r.KeepNewest >= 0 || r.Untagged != 9*day {
		t.Errorf("%+v", r)
	}
	c.Retention = c.Retention[:1]
	if r := c.RetentionOf("b"); r != nil {
		t.Errorf("%+v", r)
	}
}
