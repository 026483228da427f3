package mutate

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// instructions are those of a Dockerfile that do nothing but edit the configuration, and the fields that they edit.
var instructions = [...]struct {
	name, field string
	read        func(text string) ([]string, error)
}{
	{"CMD", "cmd", commandWords},
	{"ENTRYPOINT", "entrypoint", commandWords},
	{"ENV", "env", pairWords},
	{"EXPOSE", "port", portWords},
	{"LABEL", "label", pairWords},
	{"STOPSIGNAL", "stop-signal", wholeText},
	{"USER", "user", wholeText},
	{"VOLUME", "volume", listWords},
	{"WORKDIR", "workdir", wholeText},
}

// ParseInstructions reads instructions as a Dockerfile has them, one each, such as `ENV A=1 B="two words"` or
// `CMD ["sh", "-c", "true"]`. As there, an ENTRYPOINT without a CMD takes away the CMD that was.
func ParseInstructions(lines []string) ([]Edit, error) {
	var edits []Edit
	seen := map[string]bool{}
	for _, line := range lines {
		name, edit, err := parseInstruction(line)
		if err != nil {
			return nil, fmt.Errorf("instruction %.200q: %w", line, err)
		}
		seen[name] = true
		edits = append(edits, edit)
	}
	if seen["ENTRYPOINT"] && !seen["CMD"] {
		edits = append(edits, func(c *v1.Image) { c.Config.Cmd = nil })
	}
	return edits, nil
}

func parseInstruction(line string) (name string, _ Edit, err error) {
	name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	text = strings.TrimSpace(text)
	var names []string
	for _, i := range instructions {
		if names = append(names, i.name); !strings.EqualFold(name, i.name) {
			continue
		}
		if text == "" {
			return "", nil, errors.New("it says nothing")
		}
		values, err := i.read(text)
		if err != nil {
			return "", nil, err
		}
		f, err := FindField(i.field)
		if err != nil {
			return "", nil, err
		}
		if i.field == "workdir" && !path.IsAbs(values[0]) {
			return i.name, func(c *v1.Image) { c.Config.WorkingDir = path.Join("/", c.Config.WorkingDir, values[0]) }, nil
		}
		edit, err := f.Put(values...)
		return i.name, edit, err
	}
	return "", nil, fmt.Errorf("want one of %s", strings.Join(names, ", "))
}

// commandWords reads a list in JSON, or else a line for the shell.
func commandWords(text string) ([]string, error) {
	var words []string
	if json.Unmarshal([]byte(text), &words) == nil {
		if len(words) == 0 {
			return []string{""}, nil // the field's way to have none
		}
		return words, nil
	}
	return []string{"/bin/sh", "-c", text}, nil
}

// listWords reads a list in JSON, or else words.
func listWords(text string) ([]string, error) {
	var words []string
	if json.Unmarshal([]byte(text), &words) == nil {
		if len(words) == 0 {
			return nil, errors.New("an empty list")
		}
		return words, nil
	}
	return splitWords(text)
}

// portWords are ports, which are TCP's where nothing else is said.
func portWords(text string) ([]string, error) {
	words, err := splitWords(text)
	for i, w := range words {
		if !strings.Contains(w, "/") {
			words[i] = w + "/tcp"
		}
	}
	return words, err
}

func wholeText(text string) ([]string, error) {
	words, err := splitWords(text)
	if err == nil && len(words) != 1 {
		err = errors.New("want one word")
	}
	return words, err
}

// pairWords reads NAME=VALUE, several of them, or the old form NAME VALUE, whose value goes to the end of the line.
func pairWords(text string) ([]string, error) {
	if first, rest, ok := strings.Cut(text, " "); !strings.ContainsAny(first, `="'`) {
		if !ok {
			return nil, errors.New("want NAME=VALUE")
		}
		return []string{first + "=" + strings.TrimSpace(rest)}, nil
	}
	return splitWords(text)
}

// splitWords splits at spaces that are not quoted, and takes the quotes away: both kinds, and a backslash before one character,
// which in single quotes is itself.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := byte(0), false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("it says nothing")
	}
	return words, nil
}
