// Command render is the witness for truetune's Go templates: it runs them in the real text/template, with the messages
// prepared as Ollama prepares them (template/template.go and server/routes.go of https://github.com/ollama/ollama, as
// facts; nothing of it is copied).
//
// It reads JSON objects and answers each with one in a line: the text, or Go's error, and the words around a thought.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
)

type turn struct {
	Role     string `json:"role"`
	Content  string `json:"content"`
	Thinking string `json:"reasoning_content"`
}

type question struct {
	Template string `json:"template"`
	System   string `json:"system"`
	Messages []turn `json:"messages"`
	Think    *bool  `json:"think"`
}

type answer struct {
	Text  string   `json:"text"`
	Error string   `json:"error"`
	Marks []string `json:"marks"`
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	in, known := json.NewDecoder(lines), map[string]*template.Template{}
	to := json.NewEncoder(out)
	to.SetEscapeHTML(false)
	for in.More() {
		var asked question
		if err := in.Decode(&asked); err != nil {
			panic(err)
		}
		if err := to.Encode(respond(asked, known)); err != nil {
			panic(err)
		}
	}
}

func respond(asked question, known map[string]*template.Template) answer {
	tree, ok := known[asked.Template]
	if !ok {
		read, err := template.New("").Option("missingkey=zero").Funcs(template.FuncMap{
			"json": func(v any) string { b, _ := json.Marshal(v); return string(b) },
		}).Parse(asked.Template)
		if err != nil {
			return answer{Error: err.Error()}
		}
		tree, known[asked.Template] = read, read
	}
	turns := asked.Messages
	if asked.System != "" && (len(turns) == 0 || turns[0].Role != "system") {
		turns = append([]turn{{Role: "system", Content: asked.System}}, turns...)
	}
	system, messages := collate(turns)
	var text strings.Builder
	err := tree.Execute(&text, map[string]any{"System": system, "Messages": messages, "Response": "", "Tools": nil,
		"Think": asked.Think != nil && *asked.Think, "ThinkLevel": "", "IsThinkSet": asked.Think != nil})
	opening, closing := marks(tree.Root)
	told := answer{Text: text.String(), Marks: []string{opening, closing}}
	if err != nil {
		told.Error = err.Error()
	}
	return told
}

// collate gathers the system texts, and joins messages of one role that follow one another, but those of tools.
func collate(turns []turn) (string, []*turn) {
	var systems []string
	var joined []*turn
	for i := range turns {
		one := turns[i]
		if one.Role == "system" {
			systems = append(systems, one.Content)
		}
		if last := len(joined) - 1; last >= 0 && joined[last].Role == one.Role && one.Role != "tool" {
			joined[last].Content += "\n\n" + one.Content
		} else {
			joined = append(joined, &one)
		}
	}
	return strings.Join(systems, "\n\n"), joined
}

// marks are the words around a thought: the first and the last text in the innermost list of nodes that writes
// .Thinking inside a range over .Messages.
func marks(root *parse.ListNode) (opening, closing string) {
	var list func(nodes *parse.ListNode, within bool)
	names := func(pipe *parse.PipeNode, name string) bool { return strings.Contains(pipe.String(), "."+name) }
	list = func(nodes *parse.ListNode, within bool) {
		if nodes == nil {
			return
		}
		for _, node := range nodes.Nodes {
			var pipe *parse.PipeNode
			switch node := node.(type) {
			case *parse.ActionNode:
				pipe = node.Pipe
			case *parse.TemplateNode:
				pipe = node.Pipe
			case *parse.IfNode:
				list(node.List, within)
				list(node.ElseList, within)
			case *parse.RangeNode:
				list(node.List, within || names(node.Pipe, "Messages"))
			}
			if pipe == nil || !within || !names(pipe, "Thinking") {
				continue
			}
			if first, ok := nodes.Nodes[0].(*parse.TextNode); ok {
				opening = strings.TrimSpace(string(first.Text))
			}
			if last, ok := nodes.Nodes[len(nodes.Nodes)-1].(*parse.TextNode); ok {
				closing = strings.TrimSpace(string(last.Text))
			}
		}
	}
	list(root, false)
	return opening, closing
}
