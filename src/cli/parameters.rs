//! What files tell about their making: text fields of a PNG, metadata beside codes.
//!
//! Both have `Software` and `parameters`, a JSON object: the settings, and under `images` one object per
//! picture. A picture with a file of its own tells of itself alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

/// Names and values, in the file's order.
pub type Fields = Vec<(String, String)>;

const PARAMETERS: &str = "parameters";
const SOFTWARE: &str = "Software";
const IMAGES: &str = "images";

/// The settings of a run and its pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    settings: Map<String, Value>,
    /// Per picture, in order.
    images: Vec<Value>,
    /// What came with the codes besides.
    others: Fields,
}

impl Parameters {
    /// `settings` must serialize to an object without `images`.
    pub fn new(settings: &impl Serialize, images: Vec<Value>) -> Self {
        // By way of text, where an f32 of 0.7 is 0.7 and not the nearest f64.
        let text = serde_json::to_string(settings).expect("plain data");
        let settings = serde_json::from_str(&text).expect("an object");
        Self { settings, images, others: Fields::new() }
    }

    /// What codes of `pictures` pictures say of themselves.
    pub fn of_codes(metadata: &BTreeMap<String, String>, pictures: usize) -> Self {
        let text = metadata.get(PARAMETERS).map_or("{}", String::as_str);
        let mut settings: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let images = match settings.remove(IMAGES) {
            Some(Value::Array(images)) if images.len() == pictures => images,
            _ => Vec::new(),
        };
        let others = metadata.iter().filter(|(key, value)| is_field(key, value));
        Self { settings, images, others: others.map(|(key, value)| (key.clone(), value.clone())).collect() }
    }

    /// The number of the picture at `index`: what it tells, else `index`.
    pub fn number(&self, index: usize) -> u64 {
        self.images.get(index).and_then(|image| image.get("image")?.as_u64()).unwrap_or(index as u64)
    }

    /// A setting of the run as text, such as the name of a checkpoint.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name)?.as_str()
    }

    /// Everything, for a file with all pictures.
    pub fn of_all(&self) -> Fields {
        self.fields(&self.images)
    }

    /// For the file of the picture at `index`.
    pub fn of_one(&self, index: usize) -> Fields {
        self.fields(self.images.get(index..index + 1).unwrap_or_default())
    }

    fn fields(&self, images: &[Value]) -> Fields {
        let mut parameters = self.settings.clone();
        if !images.is_empty() {
            parameters.insert(IMAGES.into(), images.into());
        }
        let mut fields = vec![(SOFTWARE.into(), format!("smalti {}", env!("CARGO_PKG_VERSION")))];
        if !parameters.is_empty() {
            fields.push((PARAMETERS.into(), Value::Object(parameters).to_string()));
        }
        fields.extend(self.others.iter().cloned());
        fields
    }
}

/// Whether metadata can be a text field of a PNG, and is none that is written anyway.
fn is_field(key: &str, value: &str) -> bool {
    let spaced_well = !key.starts_with(' ') && !key.ends_with(' ') && !key.contains("  ");
    let printable = key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let fits = (1..=79).contains(&key.len()) && spaced_well && printable && !value.contains('\0');
    fits && key != PARAMETERS && key != SOFTWARE
}

/// A file's name without its folders: what is told of files, as a machine's paths mean nothing elsewhere.
pub fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_picture_tells_of_itself_alone() {
        #[derive(Serialize)]
        struct Settings {
            temperature: f32,
        }
        let images = vec![json!({ "image": 4 }), json!({ "image": 5 })];
        let parameters = Parameters::new(&Settings { temperature: 0.7 }, images);
        assert_eq!(parameters.number(1), 5);
        assert_eq!(parameters.of_one(1)[1].1, r#"{"images":[{"image":5}],"temperature":0.7}"#);

        let metadata: BTreeMap<String, String> = parameters.of_all().into_iter().collect();
        assert_eq!(Parameters::of_codes(&metadata, 2), parameters);
    }

    #[test]
    fn codes_of_other_programs_keep_what_a_png_can_hold() {
        let metadata = [("author", "me"), (" bad", "x"), ("zero", "\0"), ("parameters", "[1]")];
        let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let parameters = Parameters::of_codes(&metadata, 3);
        assert_eq!(parameters.number(2), 2);
        assert_eq!(parameters.of_one(2)[1..], [("author".to_string(), "me".to_string())]);
    }
}
