//! From a request's JSON to what the engine takes; nothing unchecked gets past here.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::app::{App, random};
use super::errors::ApiError;
use crate::engine::{Model, Request, Subject};

/// A request that was checked.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    pub request: Request,
    pub stream: bool,
    /// Whether the stream tells of every row.
    pub progress: bool,
}

/// Fields of OpenAI's schema that mean nothing here.
const IGNORED: [&str; 6] = ["background", "moderation", "output_compression", "quality", "style", "user"];

/// OpenAI's limits.
const MOST_PREVIEWS: u64 = 3;
const LONGEST_PROMPT: usize = 32_000;

impl Wanted {
    /// Parses and checks a body.
    pub fn parse(body: &[u8], app: &App) -> Result<Self, ApiError> {
        let invalid = |message: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message);
        let value: Value =
            serde_json::from_slice(body).map_err(|error| invalid(format!("the body is no JSON: {error}")))?;
        let Value::Object(fields) = value else { return Err(invalid("the body is no JSON object".into())) };
        let mut fields = Fields(fields);
        let wanted = Self::of_fields(&mut fields, app)?;
        match fields.0.keys().next() {
            None => Ok(wanted),
            Some(unknown) => {
                let shown: String = unknown.chars().take(64).collect();
                Err(ApiError::field(&shown, "unknown_parameter", format!("unknown parameter: {shown}")))
            }
        }
    }

    fn of_fields(fields: &mut Fields, app: &App) -> Result<Self, ApiError> {
        let model = &app.model;
        if let Some(name) = fields.text("model")?.filter(|name| *name != app.name) {
            let message = format!("the model `{}` is not served here, but `{}` is", excerpt(&name), app.name);
            let mut error = ApiError::field("model", "model_not_found", message);
            error.status = StatusCode::NOT_FOUND;
            return Err(error);
        }
        fields.expect("response_format", &["b64_json"])?;
        fields.expect("output_format", &["png"])?;
        let side = model.image_size();
        fields.expect("size", &["auto", &format!("{side}x{side}")])?;
        if fields.take("background").is_some_and(|background| background == "transparent") {
            return Err(ApiError::field("background", "invalid_value", "pictures have no transparent parts"));
        }
        if fields.take("negative_prompt").is_some_and(|prompt| prompt != "") {
            let message = "LlamaGen guides away from \"no text\", which it learnt, not from another prompt";
            return Err(ApiError::field("negative_prompt", "invalid_value", message));
        }
        IGNORED.iter().for_each(|name| _ = fields.take(name));

        let mut request = Request::new(subjects(fields, model)?);
        request.count = fields.integer("n", 1..=u64::MAX)?.unwrap_or(1) as usize;
        if !(1..=app.options.max_images).contains(&request.images()) {
            let most = app.options.max_images;
            return Err(ApiError::field("n", "invalid_value", format!("at most {most} pictures of a request")));
        }
        request.options.seed = fields.integer("seed", 0..=u64::MAX)?.unwrap_or_else(|| random() >> 32);
        request.first_image = fields.integer("first_image", 0..=u64::MAX)?.unwrap_or(0);
        request.deadline = Some(app.options.timeout);

        let options = &mut request.options;
        let alias = fields.number("guidance_scale")?;
        options.cfg_scale = fields.number("cfg_scale")?.or(alias);
        options.cfg_interval = fields.signed("cfg_interval")?.unwrap_or(-1).clamp(-2, i32::MAX.into()) as i32;
        options.temperature = fields.number("temperature")?.unwrap_or(1.0);
        options.top_k = fields.signed("top_k")?;
        options.top_p = fields.number("top_p")?.unwrap_or(1.0);
        options.greedy = fields.flag("greedy")?;

        let stream = fields.flag("stream")?;
        let previews = fields.integer("partial_images", 0..=MOST_PREVIEWS)?.unwrap_or(0) as usize;
        request.previews = if stream { previews } else { 0 };
        let progress = fields.flag("progress")? && stream;
        Ok(Self { request, stream, progress })
    }
}

/// What to show: `class_label` where there is one, else `prompt`.
fn subjects(fields: &mut Fields, model: &Model) -> Result<Vec<Subject>, ApiError> {
    let prompt = fields.take("prompt");
    let label = fields.take("class_label");
    if model.num_classes().is_none() {
        if label.is_some() {
            let message = "the model is text-conditional: it takes a prompt";
            return Err(ApiError::field("class_label", "invalid_value", message));
        }
        return match prompt {
            Some(Value::String(prompt)) if prompt.chars().nth(LONGEST_PROMPT).is_some() => {
                let message = format!("prompt: expected at most {LONGEST_PROMPT} characters");
                Err(ApiError::field("prompt", "invalid_value", message))
            }
            Some(Value::String(prompt)) => Ok(vec![Subject::Prompt(prompt)]),
            Some(_) => Err(ApiError::field("prompt", "invalid_type", "prompt: expected a text")),
            None => Err(ApiError::field("prompt", "missing_required_parameter", "prompt is required")),
        };
    }
    let name = if label.is_some() { "class_label" } else { "prompt" };
    let class = |value: &Value| {
        let text = match value {
            Value::String(text) => text.strip_prefix("class:").unwrap_or(text).to_string(),
            Value::Number(number) => number.to_string(),
            _ => return Err(ApiError::field(name, "invalid_type", format!("{name}: expected a class number or name"))),
        };
        model.class(excerpt(&text)).map(Subject::Class).map_err(|error| ApiError::from(error).about(name))
    };
    match label.or(prompt) {
        None => Err(ApiError::field("prompt", "missing_required_parameter", "prompt or class_label is required")),
        Some(Value::Array(list)) if name == "class_label" => list.iter().map(class).collect(),
        Some(value) => Ok(vec![class(&value)?]),
    }
}

/// The beginning of a text, as long as a line of an error may be.
fn excerpt(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(at, _)| &text[..at])
}

/// Fields that were not looked at yet.
struct Fields(Map<String, Value>);

impl Fields {
    /// A field's value; null is none.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn wrong<T>(name: &str, expected: &str) -> Result<T, ApiError> {
        Err(ApiError::field(name, "invalid_type", format!("{name}: expected {expected}")))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Self::wrong(name, "a text"),
        }
    }

    /// A text that can only be one of a few.
    fn expect(&mut self, name: &str, all: &[&str]) -> Result<(), ApiError> {
        match self.text(name)? {
            Some(text) if !all.contains(&text.as_str()) => {
                let message = format!("{name} `{}`: expected {}", excerpt(&text), all.join(" or "));
                Err(ApiError::field(name, "invalid_value", message))
            }
            _ => Ok(()),
        }
    }

    fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Self::wrong(name, "true or false"),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number as f32)),
                None => Self::wrong(name, "a number"),
            },
        }
    }

    fn signed(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Self::wrong(name, "an integer"),
            },
        }
    }

    fn integer(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|number| range.contains(number)) {
                Some(number) => Ok(Some(number)),
                None => Self::wrong(name, &format!("an integer from {} to {}", range.start(), range.end())),
            },
        }
    }
}
