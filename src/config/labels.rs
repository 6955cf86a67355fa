//! Class names: what a user may say instead of a class number.
//!
//! A class has one line of text, one or more names separated by ", " (`lesser panda, red panda, panda`).
//! `imagenet_labels.txt` holds the 1000 classes of ImageNet-1k in the order of their numbers.

use super::Condition;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

/// How many candidates an error lists.
const LISTED: usize = 8;
/// How many close names an error suggests.
const SUGGESTED: usize = 3;

/// The names of a model's classes, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    classes: Vec<Class>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    /// As given: all names, separated by ", ".
    text: String,
    /// The names in the form that is compared; see [`normal`]. The whole text too, where it holds several.
    keys: Vec<String>,
}

impl Labels {
    /// Labels from a list whose position is the class number; each entry may hold several names separated
    /// by commas.
    pub fn from_names(names: Vec<String>) -> Self {
        let class = |text: String| {
            let mut keys: Vec<_> = text.split(',').map(normal).filter(|key| !key.is_empty()).collect();
            if keys.len() > 1 {
                keys.push(normal(&text));
            }
            Class { text, keys }
        };
        Self { classes: names.into_iter().map(class).collect() }
    }

    /// The 1000 classes of ImageNet-1k.
    pub fn imagenet() -> Self {
        Self::from_names(include_str!("imagenet_labels.txt").lines().map(str::to_string).collect())
    }

    /// The labels of a model with `num_classes` classes: its own names if there is one for each class,
    /// else ImageNet's where there are 1000 classes.
    pub fn for_model(num_classes: usize, metadata_names: Option<Vec<String>>) -> Option<Self> {
        match metadata_names {
            Some(names) if names.len() == num_classes => Some(Self::from_names(names)),
            _ if num_classes == 1000 => Some(Self::imagenet()),
            _ => None,
        }
    }

    /// The labels of a transformer: those of its metadata (`class_names`, a JSON list), else ImageNet's where they
    /// fit; none for a text model. The second item is a line for the user, when the metadata's do not fit.
    pub fn detect(checkpoint: &Checkpoint, condition: &Condition) -> (Option<Self>, Option<String>) {
        let &Condition::Class { num_classes } = condition else { return (None, None) };
        let Some(text) = checkpoint.metadata().get("class_names") else {
            return (Self::for_model(num_classes, None), None);
        };
        let names = serde_json::from_str::<Vec<String>>(text);
        let found = match &names {
            Ok(names) if names.len() == num_classes => None,
            Ok(names) => Some(format!("{} name{}", names.len(), if names.len() == 1 { "" } else { "s" })),
            Err(error) => Some(format!("another text ({error})")),
        };
        let note = found
            .map(|found| format!("class_names ignored: expected a JSON list of {num_classes} names, found {found}"));
        (Self::for_model(num_classes, names.ok()), note)
    }

    /// All names of a class, as given.
    pub fn names(&self, class: u32) -> Option<&str> {
        self.classes.get(class as usize).map(|class| class.text.as_str())
    }

    /// The first name of a class.
    pub fn name(&self, class: u32) -> Option<&str> {
        self.names(class).and_then(|names| names.split(',').next()).map(str::trim)
    }

    /// How many classes have names.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The class that `text` means; see [`resolve_class`].
    ///
    /// # Errors
    /// [`Error::Option`] for `class`.
    pub fn resolve(&self, text: &str, num_classes: usize) -> Result<u32> {
        resolve_class(Some(self), text, num_classes)
    }

    /// The classes below `num_classes` that `text` names. The first kind of match that fits any class counts:
    /// a whole name, the beginning of a word in a name, any part of a name.
    fn matches(&self, text: &str, num_classes: usize) -> Vec<u32> {
        let wanted = normal(text);
        let starts_word = format!(" {wanted}");
        let kinds: [&dyn Fn(&str) -> bool; 3] =
            [&|key| key == wanted, &|key| key.starts_with(&wanted) || key.contains(&starts_word), &|key| {
                key.contains(&wanted)
            }];
        let fitting = |fits: &dyn Fn(&str) -> bool| -> Vec<u32> {
            let classes = self.classes.iter().take(num_classes).enumerate();
            classes.filter(|(_, class)| class.keys.iter().any(|key| fits(key))).map(|(i, _)| i as u32).collect()
        };
        kinds.into_iter().map(fitting).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The classes with the names closest to `text`, best first, none that differs by more than a third.
    fn close(&self, text: &str, num_classes: usize) -> Vec<u32> {
        let wanted: Vec<char> = normal(text).chars().collect();
        let mut found: Vec<(usize, u32)> = Vec::new();
        for (number, class) in self.classes.iter().take(num_classes).enumerate() {
            let distance = class.keys.iter().map(|key| edit_distance(&wanted, key)).min();
            if let Some(distance) = distance.filter(|&distance| distance <= (wanted.len() / 3).max(1)) {
                found.push((distance, number as u32));
            }
        }
        found.sort_unstable();
        found.into_iter().take(SUGGESTED).map(|(_, number)| number).collect()
    }

    /// "134 crane, 517 crane", at most `limit` of them, then how many more.
    fn list(&self, classes: &[u32], limit: usize) -> String {
        let shown: Vec<_> =
            classes.iter().take(limit).map(|&class| format!("{class} {}", self.name(class).unwrap_or(""))).collect();
        let more = classes.len().saturating_sub(limit);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        shown.join(", ") + &more
    }
}

/// The class that `text` means: a number from 0 to `num_classes - 1`, or a name where there are `labels`.
///
/// Case does not matter, and `-` and `_` count as spaces. A number is always a class number. A whole
/// name wins; else the only class with a name that holds a word beginning with `text`; else the only class
/// with a name that holds `text` at all.
///
/// # Errors
/// [`Error::Option`] for `class`: the number is out of range, no class fits (close names are suggested), or
/// several do (they are listed with their numbers).
pub fn resolve_class(labels: Option<&Labels>, text: &str, num_classes: usize) -> Result<u32> {
    let text = text.trim();
    let range = format!("a class number from 0 to {}", num_classes.saturating_sub(1));
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse::<u32>().ok().filter(|&number| (number as usize) < num_classes);
        return number.ok_or_else(|| refusal(text, range, String::new()));
    }
    let Some(labels) = labels else {
        return Err(refusal(text, range, "this model has no class names: give the number".into()));
    };
    let range = range + " or a class name";
    if normal(text).is_empty() {
        return Err(refusal(text, range, String::new()));
    }
    match labels.matches(text, num_classes)[..] {
        [class] => Ok(class),
        [] => {
            let close = labels.close(text, num_classes);
            let hint = match close[..] {
                [] => String::new(),
                _ => format!("did you mean {}?", labels.list(&close, SUGGESTED)),
            };
            Err(refusal(text, range, hint))
        }
        ref several => {
            let expected = format!("one class; {} fit: {}", several.len(), labels.list(several, LISTED));
            let key = normal(text);
            // Classes of one and the same name are told apart by number alone.
            let whole = several.iter().any(|&class| labels.classes[class as usize].keys.contains(&key));
            let hint = if whole { "give the class's number" } else { "give a class's number or its whole name" };
            Err(refusal(text, expected, hint.into()))
        }
    }
}

/// The classes of a comma-separated list such as `207, golden retriever`; each item is resolved alone.
///
/// # Errors
/// [`Error::Option`] for `class` with the first item that [`resolve_class`] refuses, an empty one included.
pub fn resolve_classes(labels: Option<&Labels>, list: &str, num_classes: usize) -> Result<Vec<u32>> {
    list.split(',').map(|item| resolve_class(labels, item, num_classes)).collect()
}

fn refusal(text: &str, expected: String, hint: String) -> Error {
    // An empty value would be invisible in the message.
    let value = if text.is_empty() { "\"\"".to_string() } else { text.to_string() };
    Error::Option { option: "class", value, expected, hint }
}

/// Lower case, words separated by single spaces; `-`, `_` and commas separate words too.
fn normal(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<_> =
        lower.split(|c: char| c.is_whitespace() || "-_,".contains(c)).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// The least number of characters inserted, removed or exchanged that turns one text into the other.
fn edit_distance(a: &[char], b: &str) -> usize {
    // row[i]: distance between the first i characters of `a` and the characters of `b` seen so far.
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for b in b.chars() {
        let mut diagonal = row[0];
        row[0] += 1;
        for (i, &a) in a.iter().enumerate() {
            let exchanged = diagonal + usize::from(a != b);
            diagonal = row[i + 1];
            row[i + 1] = exchanged.min(row[i] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imagenet(text: &str) -> Result<u32> {
        Labels::imagenet().resolve(text, 1000)
    }

    fn told(result: Result<u32>) -> (String, String) {
        let error = result.unwrap_err();
        assert!(error.is_usage());
        (error.to_string(), error.hint().unwrap_or("").to_string())
    }

    #[test]
    fn imagenet_is_whole_and_in_order() {
        let labels = Labels::imagenet();
        assert_eq!(labels.len(), 1000);
        assert!((0..1000).all(|class| !labels.name(class).unwrap().is_empty()));
        let known = [
            (0, "tench"),
            (88, "macaw"),
            (207, "golden retriever"),
            (250, "Siberian husky"),
            (279, "Arctic fox"),
            (360, "otter"),
            (387, "lesser panda"),
            (417, "balloon"),
            (933, "cheeseburger"),
            (974, "geyser"),
            (979, "valley"),
            (999, "toilet tissue"),
        ];
        for (class, name) in known {
            assert_eq!(labels.name(class), Some(name));
            assert_eq!(imagenet(name).unwrap(), class);
        }
        assert_eq!(labels.name(1000), None);
    }

    #[test]
    fn numbers_are_checked_against_the_range() {
        assert_eq!(imagenet("207").unwrap(), 207);
        assert_eq!(imagenet(" 0 ").unwrap(), 0);
        for text in ["1000", "-1", "99999999999999999999"] {
            let (message, _) = told(imagenet(text));
            assert_eq!(message, format!("--class {text}: expected a class number from 0 to 999"));
        }
        assert_eq!(resolve_class(None, "9", 10).unwrap(), 9);
        assert!(resolve_class(None, "10", 10).is_err());
    }

    #[test]
    fn names_fit_in_any_case_and_by_any_synonym() {
        for text in ["Golden Retriever", "GOLDEN RETRIEVER", " golden  retriever ", "golden_retriever", "golden ret"] {
            assert_eq!(imagenet(text).unwrap(), 207, "{text}");
        }
        assert_eq!(imagenet("red panda").unwrap(), 387);
        assert_eq!(imagenet("white fox").unwrap(), 279);
        assert_eq!(imagenet("man eater").unwrap(), 2);
        // A whole name wins over names that hold it.
        assert_eq!(imagenet("hen").unwrap(), 8);
        assert_eq!(imagenet("sunglass").unwrap(), 836);
        // The beginning of a word, then any part of it.
        assert_eq!(imagenet("volc").unwrap(), 980);
        assert_eq!(imagenet("eseburg").unwrap(), 933);
    }

    #[test]
    fn several_fitting_classes_are_listed() {
        let (message, hint) = told(imagenet("crane"));
        assert_eq!(message, "--class crane: expected one class; 2 fit: 134 crane, 517 crane");
        assert_eq!(hint, "give the class's number");
        assert_eq!(told(imagenet("terrier")).1, "give a class's number or its whole name");
        let (message, _) = told(imagenet("maillot"));
        assert!(message.ends_with("638 maillot, 639 maillot"), "{message}");
        let (message, _) = told(imagenet("terrier"));
        assert!(message.contains(" Staffordshire bullterrier, ") && message.contains("more"), "{message}");
        assert_eq!(message.matches(", ").count(), LISTED - 1, "{message}");
    }

    #[test]
    fn unknown_names_get_suggestions() {
        let (message, hint) = told(imagenet("golden retreiver"));
        assert_eq!(message, "--class golden retreiver: expected a class number from 0 to 999 or a class name");
        assert!(hint.starts_with("did you mean 207 golden retriever"), "{hint}");
        assert_eq!(told(imagenet("qqqqqqqqqq")).1, "");
        let (_, hint) = told(resolve_class(None, "otter", 10));
        assert_eq!(hint, "this model has no class names: give the number");
        for text in ["", "  ", "-", "_"] {
            assert!(imagenet(text).is_err(), "{text:?}");
        }
        assert!(told(imagenet("")).0.starts_with("--class \"\": expected"));
    }

    #[test]
    fn lists_are_resolved_item_by_item() {
        let labels = Labels::imagenet();
        let list = |text| resolve_classes(Some(&labels), text, 1000);
        assert_eq!(list("207,360").unwrap(), [207, 360]);
        assert_eq!(list("golden retriever, 360").unwrap(), [207, 360]);
        assert_eq!(list("5,5,5").unwrap(), [5, 5, 5]);
        for text in ["", "207,", ",207", "207,,360", "207,1000"] {
            assert!(list(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_models_own_names_come_first() {
        let names = || vec!["red".to_string(), "green, emerald".to_string(), "10".to_string()];
        let labels = Labels::for_model(3, Some(names())).unwrap();
        assert_eq!(labels.resolve("Emerald", 3).unwrap(), 1);
        assert_eq!((labels.names(1), labels.name(1)), (Some("green, emerald"), Some("green")));
        // A number is a class number even where a class is called so.
        assert!(labels.resolve("10", 3).is_err());
        // Names of another number of classes are not this model's.
        assert_eq!(Labels::for_model(4, Some(names())), None);
        assert_eq!(Labels::for_model(10, None), None);
        assert_eq!(Labels::for_model(1000, None), Some(Labels::imagenet()));
        // Only the model's classes count.
        assert!(Labels::imagenet().resolve("otter", 100).is_err());
        assert!(Labels::from_names(vec![]).is_empty());
    }

    #[test]
    fn distances() {
        let distance = |a: &str, b| edit_distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("abc", "abc")), (3, 3, 0));
        assert_eq!((distance("kitten", "sitting"), distance("flaw", "lawn")), (3, 2));
    }
}
