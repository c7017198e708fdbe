//! A part of Go's templates (<https://pkg.go.dev/text/template>), as `docker inspect --format` is used with:
//! field paths, `range`, `if`, variables of `range`, pipes and a few functions. What it does not know is an
//! error that says so.

mod evaluate;
mod functions;
mod lexer;
mod parser;

use serde_json::Value;

use parser::Node;

/// How deep actions and parentheses may lie in each other.
const DEEPEST: usize = 32;

/// A template that was understood.
#[derive(Clone, Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Errors: a sentence that names the part that is not understood.
    pub fn parse(text: &str) -> Result<Template, String> {
        parser::parse(text).map(|nodes| Template { nodes })
    }

    /// What it says of `value`. Errors: a sentence that names the field that is not there.
    pub fn render(&self, value: &Value) -> Result<String, String> {
        evaluate::render(&self.nodes, value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        let value = json!({
            "Id": "abc",
            "Size": 12,
            "Running": false,
            "Parent": null,
            "GraphDriver": {"Name": "thin", "Data": {"DeviceName": "web", "MergedDir": "/m"}},
            "Mounts": [
                {"Type": "volume", "Destination": "/a"},
                {"Type": "bind", "Destination": "/b <&>"},
            ],
            "Empty": [],
            "Config": {"Cmd": ["sh", "-c"], "Labels": {"a.b/c": "x", "z": "y"}},
        });
        Template::parse(text)?.render(&value)
    }

    #[test]
    fn what_lessons_type_works_as_typed() {
        for (template, expected) in [
            ("", ""),
            ("plain text", "plain text"),
            ("{{.Id}}", "abc"),
            ("{{ .GraphDriver.Data.MergedDir }}", "/m"),
            ("{{ json .GraphDriver.Data }}", r#"{"DeviceName":"web","MergedDir":"/m"}"#),
            (
                "{{json .Mounts}}",
                r#"[{"Destination":"/a","Type":"volume"},{"Destination":"/b <&>","Type":"bind"}]"#,
            ),
            (
                "{{ .Mounts | json }}",
                r#"[{"Destination":"/a","Type":"volume"},{"Destination":"/b <&>","Type":"bind"}]"#,
            ),
            ("{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}", "volume:/a bind:/b <&> "),
            ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Type}};{{end}}", "0=volume;1=bind;"),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a.b/c=x z=y "),
            ("{{range $v := .Config.Cmd}}{{$v}},{{end}}", "sh,-c,"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range .Config.Cmd}}{{$.Id}}{{.}} {{end}}", "abcsh abc-c "),
            ("{{index .Config.Labels \"a.b/c\"}}", "x"),
            ("{{(index .Mounts 1).Type}}", "bind"),
            ("{{index .Mounts 0 \"Type\"}}", "volume"),
            ("{{len .Mounts}} {{ len .Id }}", "2 3"),
            ("{{join .Config.Cmd \" \"}}", "sh -c"),
            ("{{upper .Id}}{{.Id | upper | lower}}", "ABCabc"),
            ("{{if .Running}}on{{else}}off{{end}}", "off"),
            ("{{if eq .Id \"abc\"}}yes{{end}}{{if not .Parent}} no parent{{end}}", "yes no parent"),
            ("{{if .Running}}1{{else if .Size}}2{{else}}3{{end}}", "2"),
            ("{{with .GraphDriver}}{{.Name}}{{end}}", "thin"),
            ("{{println .Id}}{{print .Size .Id}}", "abc\n12abc"),
            ("{{.Size}} {{.Running}} {{.Parent}}", "12 false <no value>"),
            ("{{.Config.Cmd}} {{.Config.Labels}}", "[sh -c] map[a.b/c:x z:y]"),
            ("a {{- .Id -}} b", "aabcb"),
            ("{{/* a comment */}}{{\"quoted \\\" text\"}}", "quoted \" text"),
            ("{{.}}{{$}}", &format!("{0}{0}", rendered("{{.}}").unwrap())),
        ] {
            assert_eq!(rendered(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (template, named) in [
            ("{{.Nothing}}", "'Nothing'"),
            ("{{.Id.Name}}", "'Name'"),
            ("{{ .GraphDriver.Data.Upper }}", "'Upper'"),
            ("{{printf \"%s\" .Id}}", "'printf'"),
            ("{{define \"x\"}}{{end}}", "'define'"),
            ("{{json}}", "'json'"),
            ("{{json .Id .Id}}", "'json'"),
            ("{{range .Id}}{{end}}", "range"),
            ("{{range .Mounts}}", "{{end}}"),
            ("{{end}}", "{{end}}"),
            ("{{else}}", "{{else}}"),
            ("{{.Id", "}}"),
            ("{{$x}}", "'$x'"),
            ("{{index .Mounts 7}}", "7"),
            ("{{\"open}}", "quot"),
            ("{{.Id )}}", ")"),
            ("{{?}}", "'?'"),
            ("{{}}", "empty"),
        ] {
            let error = rendered(template).unwrap_err();
            assert!(error.contains(named), "{template}: {error}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = format!("{}{}", "{{if .Id}}".repeat(1000), "{{end}}".repeat(1000));
        assert!(rendered(&deep).unwrap_err().contains("deep"));
        let deep = format!("{{{{{}.Id{}}}}}", "(".repeat(1000), ")".repeat(1000));
        assert!(rendered(&deep).unwrap_err().contains("deep"));
    }
}
