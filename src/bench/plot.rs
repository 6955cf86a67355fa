//! Records as a picture: a bar for each, grouped by what was asked for, one colour per engine. SVG, without a crate.

use std::fmt::Write;

use serde_json::Value;

use crate::config::Preset;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What was asked for: model, size, batch.
    pub group: String,
    /// Who did it, and in what precision.
    pub engine: String,
    pub images_per_second: f64,
}

/// Colours that are told apart in print and by most eyes (Okabe and Ito's, a grey and a brown).
const COLOURS: [&str; 10] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#777777", "#f0e442", "#000000", "#8a4b2a"];

/// Pixels of a bar, of the gap between groups, of a letter of a group's name, and of what is right of the bars.
const BAR: usize = 18;
const GAP: usize = 14;
const LETTER: usize = 8;
const WIDTH: usize = 760;
const RIGHT: usize = 90;

/// Letters of a group's name; a longer one loses its beginning.
const LETTERS: usize = 40;

impl Bar {
    /// The bar of a record, one of ours or of the baselines', which do not paint: without painting where it tells both.
    /// `None` where it has no pictures per second.
    pub fn of(record: &Value) -> Option<Self> {
        let text = |key: &str| record[key].as_str();
        let rate = |key: &str| record[key].as_f64().filter(|rate| rate.is_finite());
        let engine = text("engine").or(text("backend"))?;
        let model = text("model").or(text("model_id"));
        let side = record["image_size"].as_u64().or(record["tokens"].as_u64().map(|tokens| tokens.isqrt() * 16));
        let batch = record["batch_size"].as_u64().or(record["max_concurrency"].as_u64());
        let parts = [
            model.map(|model| if Preset::named(model).is_some() { format!("GPT-{model}") } else { model.into() }),
            side.map(|side| format!("{side} px")),
            batch.map(|batch| format!("{batch} at once")),
        ];
        // `float32` and `bfloat16` are PyTorch's names.
        let dtype = text("dtype").unwrap_or("").replace("bfloat", "bf").replace("float", "f");
        Some(Self {
            group: parts.into_iter().flatten().collect::<Vec<_>>().join(", "),
            engine: format!("{engine} {dtype}").trim_end().into(),
            images_per_second: rate("drawn_images_per_second").or(rate("images_per_second"))?,
        })
    }
}

/// An SVG of the bars, in the order in which groups and engines first come; `note` is a line below.
pub fn svg(title: &str, note: &str, bars: &[Bar]) -> String {
    let distinct = |of: &dyn Fn(&Bar) -> &str| {
        let mut seen: Vec<String> = Vec::new();
        for bar in bars {
            if !seen.iter().any(|name| name == of(bar)) {
                seen.push(of(bar).into());
            }
        }
        seen
    };
    let (groups, engines) = (distinct(&|bar| &bar.group), distinct(&|bar| &bar.engine));
    let largest = bars.iter().map(|bar| bar.images_per_second).fold(f64::MIN_POSITIVE, f64::max);
    let letters = groups.iter().map(|group| group.chars().count()).max().unwrap_or(0).min(LETTERS);
    let left = 20 + LETTER * letters;
    let scale = (WIDTH - left - RIGHT) as f64 / largest;
    let top = 40 + 20 * engines.len();
    let mut body = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(body, "{text}").expect("a string takes it");
    line(format_args!("<text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{}</text>", escape(title)));
    for (i, engine) in engines.iter().enumerate() {
        let y = 38 + 20 * i;
        let colour = COLOURS[i % COLOURS.len()];
        line(format_args!("<rect x=\"12\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"));
        line(format_args!("<text x=\"30\" y=\"{}\">{}</text>", y + 11, escape(engine)));
    }
    let mut y = top + GAP;
    for group in &groups {
        let of_group: Vec<&Bar> = bars.iter().filter(|bar| bar.group == *group).collect();
        let middle = y + of_group.len() * BAR / 2 + 4;
        let (x, name) = (left - 8, escape(&last_letters(group)));
        line(format_args!("<text x=\"{x}\" y=\"{middle}\" text-anchor=\"end\">{name}</text>"));
        for bar in of_group {
            let colour = engines.iter().position(|engine| *engine == bar.engine).unwrap_or(0) % COLOURS.len();
            let (width, height) = (bar.images_per_second * scale, BAR - 3);
            line(format_args!(
                "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{}\"/>",
                COLOURS[colour]
            ));
            let (x, value) = (left as f64 + width + 5.0, figures(bar.images_per_second));
            line(format_args!("<text x=\"{x:.1}\" y=\"{}\" font-size=\"12\">{value}</text>", y + 12));
            y += BAR;
        }
        y += GAP;
    }
    line(format_args!("<text x=\"{left}\" y=\"{}\" font-size=\"12\">images per second</text>", y + 6));
    line(format_args!("<text x=\"12\" y=\"{}\" font-size=\"11\" fill=\"#555\">{}</text>", y + 26, escape(note)));
    let height = y + 38;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// Three figures.
fn figures(x: f64) -> String {
    let decimals = if x >= 100.0 { 0 } else { (2.0 - x.max(1e-9).log10().floor()) as usize };
    format!("{x:.decimals$}")
}

/// A group's name, or its end after an ellipsis.
fn last_letters(group: &str) -> String {
    match group.chars().count().checked_sub(LETTERS) {
        None | Some(0) => group.into(),
        Some(beyond) => format!("…{}", group.chars().skip(beyond + 1).collect::<String>()),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_of_all_engines_are_read() {
        let ours = json!({"engine": "smalti 0.1.0", "model": "B", "dtype": "bf16", "image_size": 256, "batch_size": 4,
            "images_per_second": 1.25, "drawn_images_per_second": 1.5});
        let torch = json!({"engine": "torch 2.11 eager", "model": "B", "dtype": "bfloat16", "tokens": 256,
            "batch_size": 4, "images_per_second": 0.3});
        let (ours, torch) = (Bar::of(&ours).expect("a bar"), Bar::of(&torch).expect("a bar"));
        assert_eq!((ours.group.as_str(), ours.engine.as_str()), ("GPT-B, 256 px, 4 at once", "smalti 0.1.0 bf16"));
        assert_eq!(ours.images_per_second, 1.5);
        assert_eq!((&torch.group, torch.engine.as_str()), (&ours.group, "torch 2.11 eager bf16"));
        assert_eq!(Bar::of(&json!({"engine": "x", "images_per_second": null})), None);
    }

    #[test]
    fn names_have_room() {
        let bar = |group: &str| Bar { group: group.into(), engine: "one".into(), images_per_second: 1.0 };
        let long = format!("{}, 256 px", "m".repeat(50));
        let svg = svg("", "", &[bar("GPT-B"), bar(&long)]);
        let left = 20 + LETTER * LETTERS;
        assert!(
            svg.contains(&format!("x=\"{}\" y=", left - 8)) && svg.contains(&format!("<rect x=\"{left}\"")),
            "{svg}"
        );
        assert!(svg.contains(&format!(">…{}, 256 px<", "m".repeat(31))), "{svg}");
    }

    #[test]
    fn bars_are_as_long_as_their_rates() {
        let bar = |group: &str, engine: &str, images_per_second| Bar {
            group: group.into(),
            engine: engine.into(),
            images_per_second,
        };
        let svg = svg("a & b", "<note>", &[bar("x", "one", 2.0), bar("x", "two", 1.0), bar("y", "one", 0.5)]);
        let full = (WIDTH - (20 + LETTER) - RIGHT) as f64;
        for share in [1.0, 0.5, 0.25] {
            assert!(svg.contains(&format!("width=\"{:.1}\"", full * share)), "{svg}");
        }
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;note&gt;") && svg.contains(">0.500<"));
        assert_eq!(svg.matches(COLOURS[0]).count(), 3, "the legend and two bars");
        assert_eq!([figures(0.0412), figures(12.34), figures(1234.0)], ["0.0412", "12.3", "1234"]);
    }
}
