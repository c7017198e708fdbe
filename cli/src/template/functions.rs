//! The functions that a template can call.

use serde_json::Value;

use super::evaluate::text_of;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Json,
    Len,
    Index,
    Join,
    Lower,
    Upper,
    Print,
    Println,
    Eq,
    Ne,
    Not,
}

impl Function {
    const ALL: [(&str, Function); 11] = [
        ("json", Function::Json),
        ("len", Function::Len),
        ("index", Function::Index),
        ("join", Function::Join),
        ("lower", Function::Lower),
        ("upper", Function::Upper),
        ("print", Function::Print),
        ("println", Function::Println),
        ("eq", Function::Eq),
        ("ne", Function::Ne),
        ("not", Function::Not),
    ];

    pub(super) fn named(name: &str) -> Option<Function> {
        Function::ALL.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }

    pub(super) fn names() -> String {
        Function::ALL.map(|(name, _)| name).join(", ")
    }

    fn name(self) -> &'static str {
        Function::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Its value. Errors: of the number or the kind of its arguments.
    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, String> {
        let wrong = || {
            let given: Vec<String> = arguments.iter().map(text_of).collect();
            format!("'{}' cannot be had of ({})", self.name(), given.join(", "))
        };
        Ok(match (self, arguments) {
            (Function::Json, [value]) => Value::String(value.to_string()),
            (Function::Len, [Value::Array(list)]) => list.len().into(),
            (Function::Len, [Value::Object(map)]) => map.len().into(),
            (Function::Len, [Value::String(text)]) => text.len().into(),
            (Function::Index, [value, path @ ..]) if !path.is_empty() => {
                path.iter().try_fold(value.clone(), |value, key| element(&value, key))?
            }
            (Function::Join, [Value::Array(list), Value::String(between)]) => {
                list.iter().map(text_of).collect::<Vec<_>>().join(between).into()
            }
            (Function::Lower, [Value::String(text)]) => text.to_lowercase().into(),
            (Function::Upper, [Value::String(text)]) => text.to_uppercase().into(),
            (Function::Print, values) => values.iter().map(text_of).collect::<String>().into(),
            (Function::Println, values) => {
                let texts: Vec<String> = values.iter().map(text_of).collect();
                format!("{}\n", texts.join(" ")).into()
            }
            (Function::Eq, [first, others @ ..]) if !others.is_empty() => {
                others.contains(first).into()
            }
            (Function::Ne, [first, second]) => (first != second).into(),
            (Function::Not, [value]) => (!is_true(value)).into(),
            _ => return Err(wrong()),
        })
    }
}

fn element(value: &Value, key: &Value) -> Result<Value, String> {
    let found = match (value, key) {
        (Value::Array(list), Value::Number(place)) => {
            place.as_u64().and_then(|place| list.get(usize::try_from(place).ok()?))
        }
        // Go gives the zero value of a map for a key that is not there.
        (Value::Object(map), Value::String(name)) => {
            return Ok(map.get(name).cloned().unwrap_or(Value::Null));
        }
        _ => None,
    };
    found.cloned().ok_or_else(|| format!("there is nothing at index {}", text_of(key)))
}

/// What Go's templates take for true.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_true) => *is_true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
