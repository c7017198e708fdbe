//! From TOML to a workload, with messages that say what to change where.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::template::number;
use super::traces;
use super::{Action, Content, Image, ImageFile, Measure, Said, Step, Template, Workload};
use crate::results::{ParameterValue, Parameters};
use crate::run::{MountOrder, ReplaySpeed};

/// A number, or a text with parameters in it.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Text(String),
}

impl From<Value> for Template {
    fn from(value: Value) -> Self {
        match value {
            Value::Number(number) => Self::new(number.to_string()),
            Value::Text(text) => Self::new(text),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    title: String,
    purpose: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    image: FileImage,
    #[serde(default)]
    cold: bool,
    writes_bytes: Option<Value>,
    seconds: Option<f64>,
    #[serde(default)]
    parameters: BTreeMap<String, Vec<Value>>,
    quick: Option<Quick>,
    steps: Vec<toml::Spanned<FileStep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quick {
    #[serde(default)]
    parameters: BTreeMap<String, Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileImage {
    base: Option<String>,
    layers: Option<Value>,
    #[serde(default)]
    files: Vec<FileImageFile>,
    #[serde(default)]
    programs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileImageFile {
    path: String,
    size: Option<Value>,
    text: Option<String>,
    count: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStep {
    r#do: String,
    containers: Option<Value>,
    #[serde(default)]
    parallel: bool,
    #[serde(default)]
    copies: bool,
    measure: Option<String>,
    operations: Option<Value>,
    figure: Option<Said>,
    mounts: Option<Vec<String>>,
    run: Option<Vec<String>>,
    options: Option<Vec<String>>,
    file: Option<String>,
    offset: Option<Value>,
    size: Option<Value>,
    sync: Option<bool>,
    trace: Option<String>,
    speed: Option<String>,
}

/// A line (0 if none is known) and what is wrong.
type Fault = (usize, String);

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Reads the text of a file in `folder`, from where traces are named.
pub(super) fn parse(folder: &Path, text: &str) -> Result<Workload, Fault> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| line_at(text, span.start));
        (line, error.message().to_owned())
    })?;
    let whole = |message: String| (0, message);
    check_name("name", &file.name).map_err(whole)?;
    for (field, value) in [("title", &file.title), ("purpose", &file.purpose)] {
        if value.trim().is_empty() {
            return Err((0, format!("'{field}' is empty")));
        }
    }
    let parameters = values(&file.name, file.parameters).map_err(whole)?;
    let quick_parameters = match file.quick {
        Some(quick) => Some(
            quick_values(&parameters, values(&file.name, quick.parameters).map_err(whole)?)
                .map_err(whole)?,
        ),
        None => None,
    };
    if file.steps.is_empty() {
        return Err((0, "it has no [[steps]]".to_owned()));
    }
    let mut steps = Vec::new();
    for (number, spanned) in (1..).zip(file.steps) {
        let line = line_at(text, spanned.span().start);
        let said = |message| (line, format!("step {number}: {message}"));
        steps.push(step(folder, spanned.into_inner()).map_err(said)?);
    }
    if !steps.iter().any(|step| step.measure.is_some()) {
        return Err((0, "none of its steps has a 'measure': nothing would come of it".to_owned()));
    }
    let last = |wanted: fn(&Action) -> bool| steps.iter().rposition(|step| wanted(&step.action));
    if last(|action| matches!(action, Action::Start(_))) > last(|action| *action == Action::Finish)
    {
        return Err((0, "what 'start' begins wants a 'finish' after it".to_owned()));
    }
    let one = || Template::new("1");
    let mut files = Vec::new();
    for file in file.image.files {
        let content = match (file.size, file.text) {
            (Some(size), None) => Content::Noise(size.into()),
            (None, Some(text)) => Content::Text(text),
            _ => return Err((0, format!("image: {}: it wants 'size' or 'text'", file.path))),
        };
        let count = file.count.map_or_else(one, Into::into);
        files.push(ImageFile { path: file.path, content, count });
    }
    let image = Image {
        base: file.image.base,
        layers: file.image.layers.map_or_else(one, Into::into),
        files,
        programs: file.image.programs,
    };
    let workload = Workload {
        name: file.name,
        title: file.title,
        purpose: file.purpose,
        source: file.source,
        group: file.group,
        needs: file.needs,
        image,
        cold: file.cold,
        writes_bytes: file.writes_bytes.map(Into::into),
        seconds: file.seconds,
        parameters,
        quick_parameters,
        steps,
    };
    check_templates(&workload).map_err(whole)?;
    Ok(workload)
}

/// Names become names of files, anchors and options.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let good = !name.is_empty()
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        });
    if good {
        Ok(())
    } else {
        Err(format!("{what} '{name}': only a to z, 0 to 9, - and _ are for names"))
    }
}

fn values(
    workload: &str,
    parameters: BTreeMap<String, Vec<Value>>,
) -> Result<BTreeMap<String, Vec<ParameterValue>>, String> {
    let mut found = BTreeMap::new();
    for (name, values) in parameters {
        check_name("parameter", &name)?;
        if values.is_empty() {
            return Err(format!("parameter '{name}' of '{workload}' has no values"));
        }
        let mut known: Vec<ParameterValue> = Vec::new();
        for value in values {
            let value = match value {
                Value::Number(number) => ParameterValue::Number(number),
                // Sizes are numbers, so that they are in order and can be an axis.
                Value::Text(text) => match number(&text) {
                    Some(number) if name.ends_with("_bytes") => ParameterValue::Number(number),
                    _ => ParameterValue::Text(text),
                },
            };
            if name.ends_with("_bytes") && value.number().is_none() {
                return Err(format!("parameter '{name}': '{value}' is no size like 4K, 20M or 1G"));
            }
            if known.contains(&value) {
                return Err(format!("parameter '{name}' has the value {value} twice"));
            }
            known.push(value);
        }
        found.insert(name, known);
    }
    Ok(found)
}

/// The short set has all of what it does not say otherwise.
fn quick_values(
    all: &BTreeMap<String, Vec<ParameterValue>>,
    quick: BTreeMap<String, Vec<ParameterValue>>,
) -> Result<BTreeMap<String, Vec<ParameterValue>>, String> {
    let mut merged = all.clone();
    for (name, values) in quick {
        if merged.insert(name.clone(), values).is_none() {
            return Err(format!("[quick] has a parameter '{name}' that [parameters] has not"));
        }
    }
    Ok(merged)
}

fn step(folder: &Path, file: FileStep) -> Result<Step, String> {
    let action = file.r#do.as_str();
    let templates = |words: Vec<String>| words.into_iter().map(Template::new).collect::<Vec<_>>();
    let missing = |field: &str| format!("'{action}' wants '{field}'");
    // Each action has fields of its own; the others do not belong to it.
    let own: &[&str] = match action {
        "mount" => &["mounts"],
        "command" | "start" => &["run"],
        "fio" => &["options"],
        "write" => &["file", "offset", "size", "sync"],
        "replay" => &["trace", "file", "speed"],
        _ => &[],
    };
    let given = [
        ("mounts", file.mounts.is_some()),
        ("run", file.run.is_some()),
        ("options", file.options.is_some()),
        ("file", file.file.is_some()),
        ("offset", file.offset.is_some()),
        ("size", file.size.is_some()),
        ("sync", file.sync.is_some()),
        ("trace", file.trace.is_some()),
        ("speed", file.speed.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(field, given)| *given && !own.contains(field)) {
        return Err(format!("'{field}' does not belong to '{action}'"));
    }
    let found = match action {
        "create" => Action::Create,
        "mount" => Action::Mount(templates(file.mounts.unwrap_or_default())),
        "unmount" => Action::Unmount,
        "remove" => Action::Remove,
        "commit" => Action::Commit,
        "diff" => Action::Diff,
        "sync" => Action::Sync,
        "drop-caches" => Action::DropCaches,
        "space" => Action::Space,
        "page-cache" => Action::PageCache,
        "finish" => Action::Finish,
        "command" | "start" => {
            let words = file.run.ok_or_else(|| missing("run"))?;
            if words.is_empty() {
                return Err("'run' is empty: it wants a program and its arguments".to_owned());
            }
            let words = templates(words);
            if action == "start" { Action::Start(words) } else { Action::Command(words) }
        }
        "fio" => Action::Fio(templates(file.options.ok_or_else(|| missing("options"))?)),
        "write" => Action::Write {
            file: Template::new(file.file.ok_or_else(|| missing("file"))?),
            offset: file.offset.map_or_else(|| Template::new("0"), Into::into),
            size: file.size.ok_or_else(|| missing("size"))?.into(),
            sync: file.sync.unwrap_or(false),
        },
        "replay" => Action::Replay {
            trace: traces::find(folder, &file.trace.ok_or_else(|| missing("trace"))?)?,
            file: Template::new(file.file.ok_or_else(|| missing("file"))?),
            speed: Template::new(file.speed.unwrap_or_else(|| "full".to_owned())),
        },
        unknown => {
            return Err(format!(
                "there is no action '{unknown}'; there are create, mount, unmount, remove, commit, diff, command, start, \
                 finish, write, fio, replay, sync, drop-caches, space and page-cache"
            ));
        }
    };
    let measure = match (file.measure, file.operations) {
        (Some(name), operations) => {
            check_name("measure", &name)?;
            if operations.is_some()
                && matches!(
                    found,
                    Action::Fio(_) | Action::Replay { .. } | Action::Space | Action::PageCache
                )
            {
                return Err(format!(
                    "'operations' does not belong to '{action}', which counts by itself"
                ));
            }
            if file.figure.is_some()
                && !(operations.is_none() && matches!(found, Action::Command(_) | Action::Finish))
            {
                return Err(
                    "'figure' is what a 'command', or what was started, says: without 'operations'"
                        .to_owned(),
                );
            }
            let operations = operations.map(Into::into);
            Some(Measure { name, operations, figure: file.figure })
        }
        (None, None) if file.figure.is_some() => {
            return Err("'figure' without 'measure': of what?".to_owned());
        }
        (None, Some(_)) => return Err("'operations' without 'measure': of what?".to_owned()),
        (None, None) => None,
    };
    if measure.is_none() && matches!(found, Action::Space | Action::PageCache) {
        return Err(format!("'{action}' is there to measure: it wants 'measure'"));
    }
    let containers = file.containers.map_or_else(|| Template::new("1"), Into::into);
    let (parallel, copies) = (file.parallel, file.copies);
    Ok(Step { action: found, containers, parallel, copies, measure })
}

/// Everything can be resolved with every combination of parameters.
fn check_templates(workload: &Workload) -> Result<(), String> {
    let all = workload.combinations(false);
    for parameters in all.iter().chain(&workload.combinations(true)) {
        workload
            .image
            .layers
            .number(parameters)
            .map_err(|fault| format!("image: layers: {fault}"))?;
        for file in &workload.image.files {
            let said = |fault| format!("image: {}: {fault}", file.path);
            if let Content::Noise(size) = &file.content {
                size.number(parameters).map_err(said)?;
            }
            file.count.number(parameters).map_err(said)?;
        }
        if let Some(written) = &workload.writes_bytes {
            written.number(parameters).map_err(|fault| format!("writes_bytes: {fault}"))?;
        }
        for (number, step) in (1..).zip(&workload.steps) {
            check_step(step, parameters)
                .map_err(|fault| format!("step {number} ({}): {fault}", step.action.name()))?;
        }
    }
    Ok(())
}

fn check_step(step: &Step, parameters: &Parameters) -> Result<(), String> {
    if step.containers.number(parameters)? == 0 {
        return Err("for 0 containers there is nothing to do".to_owned());
    }
    if let Some(operations) = step.measure.as_ref().and_then(|measure| measure.operations.as_ref())
    {
        operations.number(parameters)?;
    }
    match &step.action {
        Action::Mount(mounts) => mounts
            .iter()
            .try_for_each(|mount| MountOrder::parse(&mount.text(parameters)?).map(drop)),
        Action::Command(words) | Action::Start(words) | Action::Fio(words) => {
            words.iter().try_for_each(|word| word.text(parameters).map(drop))
        }
        Action::Write { file, offset, size, .. } => {
            file.text(parameters)?;
            offset.number(parameters)?;
            size.number(parameters).map(drop)
        }
        Action::Replay { file, speed, .. } => {
            file.text(parameters)?;
            ReplaySpeed::parse(&speed.text(parameters)?).map(drop)
        }
        _ => Ok(()),
    }
}
