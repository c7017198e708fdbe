//! From nodes and a value to text.

use serde_json::Value;

use super::functions::is_true;
use super::parser::{Branch, Command, Node, Operand, Pipeline};

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, String> {
    let mut evaluation =
        Evaluation { text: String::new(), variables: vec![(String::new(), value.clone())] };
    evaluation.nodes(nodes, value)?;
    Ok(evaluation.text)
}

/// A value as Go prints it.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            format!("[{}]", list.iter().map(text_of).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| format!("{name}:{}", text_of(value)));
            format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
        }
    }
}

struct Evaluation {
    text: String,
    /// The innermost last; the empty name is the whole value.
    variables: Vec<(String, Value)>,
}

impl Evaluation {
    /// Depth is bounded by the parser's.
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => self.text.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    self.text.push_str(&text_of(&value));
                }
                Node::If(branch) => {
                    let is_true = is_true(&self.pipeline(&branch.on, dot)?);
                    self.nodes(if is_true { &branch.body } else { &branch.otherwise }, dot)?;
                }
                Node::With(branch) => match self.pipeline(&branch.on, dot)? {
                    value if is_true(&value) => self.nodes(&branch.body, &value)?,
                    _ => self.nodes(&branch.otherwise, dot)?,
                },
                Node::Range { place, element, branch } => {
                    self.range(place.as_deref(), element.as_deref(), branch, dot)?;
                }
            }
        }
        Ok(())
    }

    fn range(
        &mut self,
        place: Option<&str>,
        element: Option<&str>,
        branch: &Branch,
        dot: &Value,
    ) -> Result<(), String> {
        let elements: Vec<(Value, Value)> = match self.pipeline(&branch.on, dot)? {
            Value::Array(list) => {
                list.into_iter().enumerate().map(|(at, value)| (at.into(), value)).collect()
            }
            Value::Object(map) => {
                map.into_iter().map(|(name, value)| (name.into(), value)).collect()
            }
            Value::Null => Vec::new(),
            other => {
                return Err(format!("range goes over lists and maps, not '{}'", text_of(&other)));
            }
        };
        if elements.is_empty() {
            return self.nodes(&branch.otherwise, dot);
        }
        let outer = self.variables.len();
        for (at, value) in elements {
            self.variables.extend(place.map(|name| (name.to_owned(), at)));
            self.variables.extend(element.map(|name| (name.to_owned(), value.clone())));
            self.nodes(&branch.body, &value)?;
            self.variables.truncate(outer);
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut piped: Option<Value> = None;
        for command in &pipeline.commands {
            piped = Some(match command {
                Command::Call(function, operands) => {
                    let given = operands.iter().map(|operand| self.operand(operand, dot));
                    let mut arguments = given.collect::<Result<Vec<Value>, String>>()?;
                    arguments.extend(piped);
                    function.call(&arguments)?
                }
                Command::Operand(_) if piped.is_some() => {
                    return Err("only a function stands behind '|'".to_owned());
                }
                Command::Operand(operand) => self.operand(operand, dot)?,
            });
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Field(path) => field(dot, path),
            Operand::Variable(name, path) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| format!("there is no variable '${name}'"))?;
                field(value, path)
            }
            Operand::Pipeline(pipeline, path) => field(&self.pipeline(pipeline, dot)?, path),
            Operand::Text(text) => Ok(text.as_str().into()),
            Operand::Number(number) => Ok((*number).into()),
            Operand::Bool(is_true) => Ok((*is_true).into()),
        }
    }
}

fn field(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut value = value;
    for name in path {
        value = value.get(name).ok_or_else(|| {
            let known: Vec<&str> = value
                .as_object()
                .map(|map| map.keys().map(String::as_str).collect())
                .unwrap_or_default();
            match known.is_empty() {
                true => format!("there is no field '{name}' here"),
                false => format!("there is no field '{name}'; there are {}", known.join(", ")),
            }
        })?;
    }
    Ok(value.clone())
}
