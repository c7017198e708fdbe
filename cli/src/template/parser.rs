//! From text to nodes.

use super::DEEPEST;
use super::functions::Function;
use super::lexer::{Token, tokens};

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If(Branch),
    With(Branch),
    Range {
        /// The names of the place and of the element, as far as they are given.
        place: Option<String>,
        element: Option<String>,
        branch: Branch,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) on: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, of which each gets what the one before gives as its last argument.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(super) enum Command {
    Operand(Operand),
    Call(Function, Vec<Operand>),
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// A path from what `.` stands for.
    Field(Vec<String>),
    /// A path from a variable; the empty name is the whole value.
    Variable(String, Vec<String>),
    Pipeline(Box<Pipeline>, Vec<String>),
    Text(String),
    Number(i64),
    Bool(bool),
}

/// A piece of a template.
enum Piece {
    Text(String),
    Action(String),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = nodes(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some(end) => Err(format!("{{{{{end}}}}} has nothing that it belongs to")),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, next) =
            split_action(after).ok_or_else(|| format!("'{{{{{after}' has no }}}} at its end"))?;
        let trims_before = action.strip_prefix('-').filter(|text| text.starts_with([' ', '\n']));
        let (before, action) = match trims_before {
            Some(action) => (before.trim_end(), action),
            None => (before, action),
        };
        let trims_after = action.strip_suffix('-').filter(|text| text.ends_with([' ', '\n']));
        let (action, next) = match trims_after {
            Some(action) => (action, next.trim_start()),
            None => (action, next),
        };
        pieces.push(Piece::Text(before.to_owned()));
        let is_comment = action.trim().starts_with("/*") && action.trim().ends_with("*/");
        if !is_comment {
            pieces.push(Piece::Action(action.trim().to_owned()));
        }
        rest = next;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

/// The action up to its `}}`, which can stand in a quote before, and the rest.
fn split_action(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some('"') if letter == '\\' => is_escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '"' || letter == '`' => quote = Some(letter),
            None => {
                if let Some(after) = text.get(at..)?.strip_prefix("}}") {
                    return Some((text.get(..at)?, after));
                }
            }
        }
    }
    // An open quote is the more telling error.
    text.split_once("}}")
}

/// Nodes up to `end` or `else`, which is given back, or to the end.
fn nodes(
    pieces: &mut impl Iterator<Item = Piece>,
    depth: usize,
) -> Result<(Vec<Node>, Option<String>), String> {
    if depth > DEEPEST {
        return Err(format!("actions lie more than {DEEPEST} deep in each other"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = match action.split_once(|letter: char| !letter.is_alphanumeric()) {
            Some((word, _)) => (word, action.get(word.len()..).unwrap_or_default()),
            None => (action.as_str(), ""),
        };
        match word {
            "end" | "else" => return Ok((nodes, Some(action))),
            "if" => nodes.push(Node::If(branch(rest, pieces, depth)?)),
            "with" => nodes.push(Node::With(branch(rest, pieces, depth)?)),
            "range" => nodes.push(range(rest, pieces, depth)?),
            "define" | "template" | "block" | "break" | "continue" => {
                return Err(format!("'{word}' is not known here"));
            }
            _ => nodes.push(Node::Print(pipeline(&mut Words::of(&action)?, 0)?)),
        }
    }
    Ok((nodes, None))
}

fn range(
    rest: &str,
    pieces: &mut impl Iterator<Item = Piece>,
    depth: usize,
) -> Result<Node, String> {
    let Some((names, rest)) = rest.split_once(":=") else {
        let branch = branch(rest, pieces, depth)?;
        return Ok(Node::Range { place: None, element: None, branch });
    };
    let mut variables = Vec::new();
    for name in names.split(',') {
        match name.trim().strip_prefix('$') {
            Some(name) if !name.is_empty() => variables.push(name.to_owned()),
            _ => return Err(format!("'{}' is no variable's name", name.trim())),
        }
    }
    let (place, element) = match variables.as_slice() {
        [element] => (None, Some(element.clone())),
        [place, element] => (Some(place.clone()), Some(element.clone())),
        _ => return Err(format!("range takes one or two variables, not '{}'", names.trim())),
    };
    let branch = branch(rest, pieces, depth)?;
    Ok(Node::Range { place, element, branch })
}

fn branch(
    on: &str,
    pieces: &mut impl Iterator<Item = Piece>,
    depth: usize,
) -> Result<Branch, String> {
    let on = pipeline(&mut Words::of(on)?, 0)?;
    let (body, end) = nodes(pieces, depth + 1)?;
    let otherwise = match end.as_deref() {
        Some("end") => Vec::new(),
        Some("else") => match nodes(pieces, depth + 1)? {
            (otherwise, Some(end)) if end == "end" => otherwise,
            _ => return Err("an {{else}} has no {{end}}".to_owned()),
        },
        Some(other) => match other.strip_prefix("else if") {
            // Its {{end}} is this one's too.
            Some(on) => vec![Node::If(branch(on, pieces, depth + 1)?)],
            None => return Err(format!("'{other}' is not understood")),
        },
        None => return Err("an {{end}} is missing".to_owned()),
    };
    Ok(Branch { on, body, otherwise })
}

/// The words of an action, and how far they were read.
struct Words {
    action: String,
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Words {
    fn of(action: &str) -> Result<Words, String> {
        let tokens = tokens(action.trim())?.into_iter().peekable();
        Ok(Words { action: action.trim().to_owned(), tokens })
    }

    fn skip_space(&mut self) {
        while self.tokens.next_if_eq(&Token::Space).is_some() {}
    }

    fn not_understood(&self) -> String {
        match self.action.as_str() {
            "" => "an action is empty".to_owned(),
            action => format!("'{action}' is not understood"),
        }
    }
}

/// Up to the end of the action, or to a parenthesis that closes.
fn pipeline(words: &mut Words, depth: usize) -> Result<Pipeline, String> {
    if depth > DEEPEST {
        return Err(format!("parentheses lie more than {DEEPEST} deep in each other"));
    }
    let mut commands = Vec::new();
    loop {
        commands.push(command(words, depth)?);
        words.skip_space();
        if words.tokens.next_if_eq(&Token::Pipe).is_none() {
            break;
        }
    }
    match (depth, words.tokens.next()) {
        (0, None) => Ok(Pipeline { commands }),
        (1.., Some(Token::Close)) => Ok(Pipeline { commands }),
        _ => Err(words.not_understood()),
    }
}

fn command(words: &mut Words, depth: usize) -> Result<Command, String> {
    words.skip_space();
    let name = match words.tokens.peek() {
        Some(Token::Word(name)) if name != "true" && name != "false" => name.clone(),
        _ => return Ok(Command::Operand(operand(words, depth)?)),
    };
    words.tokens.next();
    let function = Function::named(&name).ok_or_else(|| {
        format!("there is no function '{name}' here; there are {}", Function::names())
    })?;
    let mut arguments = Vec::new();
    loop {
        words.skip_space();
        match words.tokens.peek() {
            None | Some(Token::Pipe | Token::Close) => break,
            Some(_) => arguments.push(operand(words, depth)?),
        }
    }
    Ok(Command::Call(function, arguments))
}

fn operand(words: &mut Words, depth: usize) -> Result<Operand, String> {
    Ok(match words.tokens.next() {
        Some(Token::Field(name)) => {
            let mut path = path(words);
            if !name.is_empty() {
                path.insert(0, name);
            }
            Operand::Field(path)
        }
        Some(Token::Variable(name)) => Operand::Variable(name, path(words)),
        Some(Token::Open) => {
            let inner = pipeline(words, depth + 1)?;
            Operand::Pipeline(Box::new(inner), path(words))
        }
        Some(Token::Text(text)) => Operand::Text(text),
        Some(Token::Number(number)) => Operand::Number(number),
        Some(Token::Word(word)) if word == "true" => Operand::Bool(true),
        Some(Token::Word(word)) if word == "false" => Operand::Bool(false),
        _ => return Err(words.not_understood()),
    })
}

/// The fields that follow without a space.
fn path(words: &mut Words) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(Token::Field(name)) =
        words.tokens.next_if(|token| matches!(token, Token::Field(name) if !name.is_empty()))
    {
        path.push(name);
    }
    path
}
