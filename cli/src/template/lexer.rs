//! The words of an action.

/// A word of what stands between `{{` and `}}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword or the name of a function.
    Word(String),
    /// `.Name`, or `.` alone with an empty name.
    Field(String),
    /// `$name`, or `$` alone with an empty name.
    Variable(String),
    Text(String),
    Number(i64),
    Open,
    Close,
    Pipe,
    Comma,
    /// `:=`
    Assign,
    /// White space between two words: `a .B` is not `a.B`.
    Space,
}

/// The words of an action, in order.
pub(super) fn tokens(action: &str) -> Result<Vec<Token>, String> {
    let mut rest = action;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            space if space.is_whitespace() => (Token::Space, rest.trim_start()),
            '(' => (Token::Open, skip(rest, 1)),
            ')' => (Token::Close, skip(rest, 1)),
            '|' => (Token::Pipe, skip(rest, 1)),
            ',' => (Token::Comma, skip(rest, 1)),
            ':' if rest.starts_with(":=") => (Token::Assign, skip(rest, 2)),
            '.' => {
                let (name, after) = name(skip(rest, 1));
                (Token::Field(name.to_owned()), after)
            }
            '$' => {
                let (name, after) = name(skip(rest, 1));
                (Token::Variable(name.to_owned()), after)
            }
            '"' => quoted(skip(rest, 1))?,
            '`' => match skip(rest, 1).split_once('`') {
                Some((text, after)) => (Token::Text(text.to_owned()), after),
                None => return Err(format!("the quote in '{action}' does not end")),
            },
            '0'..='9' | '-' => number(rest)?,
            letter if letter.is_alphabetic() || letter == '_' => {
                let (name, after) = name(rest);
                (Token::Word(name.to_owned()), after)
            }
            other => return Err(format!("'{other}' is not understood in '{action}'")),
        };
        tokens.push(token);
        rest = after;
    }
    Ok(tokens)
}

fn skip(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}

fn name(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    text.split_at(end.unwrap_or(text.len()))
}

fn quoted(text: &str) -> Result<(Token, &str), String> {
    let mut content = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((Token::Text(content), skip(text, at + 1))),
            '\\' => content.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                Some((_, same @ ('"' | '\\'))) => same,
                _ => return Err(format!("an escape in \"{text} is not understood")),
            }),
            letter => content.push(letter),
        }
    }
    Err(format!("the quote \"{text} does not end"))
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let end = text.char_indices().skip(1).find(|(_, letter)| !letter.is_ascii_digit());
    let (digits, after) = text.split_at(end.map_or(text.len(), |(at, _)| at));
    let number = digits.parse().map_err(|_| format!("'{digits}' is no number"))?;
    Ok((Token::Number(number), after))
}
