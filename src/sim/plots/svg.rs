//! Elements of an SVG, one behind the other: no scripts, nothing from elsewhere.

use std::fmt::Write;

/// How everything looks: dark on light, whatever is around it.
const STYLE: &str = "text{font:12px sans-serif;fill:#222}.title{font-size:16px;font-weight:bold}\
    .head{font-weight:bold}.small{font-size:11px}.axis{stroke:#444;fill:none}\
    .grid{stroke:#ddd;fill:none}.limit{stroke:#222;stroke-dasharray:2 4;fill:none}";

/// A drawing.
pub struct Svg {
    out: String,
}

impl Svg {
    /// An empty one on a white ground, which is called so.
    pub fn new(width: f64, height: f64, title: &str) -> Svg {
        let mut svg = Svg { out: String::new() };
        let _ = write!(
            svg.out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n\
             <style>{STYLE}</style>\n",
            escaped(title)
        );
        let size = [("width", number(width)), ("height", number(height))];
        svg.element("rect", &[&size[..], &[("fill", "#fff".to_owned())]].concat(), "");
        svg
    }

    /// An element that says `tip` when it is pointed at, if that is not empty.
    pub fn element(&mut self, name: &str, attributes: &[(&str, String)], tip: &str) {
        let _ = write!(self.out, "<{name}");
        for (attribute, value) in attributes {
            let _ = write!(self.out, " {attribute}=\"{}\"", escaped(value));
        }
        let _ = match tip {
            "" => writeln!(self.out, "/>"),
            tip => writeln!(self.out, "><title>{}</title></{name}>", escaped(tip)),
        };
    }

    /// A line from here to there.
    pub fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        let ends = [("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)];
        let mut attributes = vec![("class", class.to_owned())];
        attributes.extend(ends.map(|(name, at)| (name, number(at))));
        self.element("line", &attributes, "");
    }

    /// Words; `anchor` is the end of them that is here: start, middle or end.
    pub fn text(&mut self, class: &str, anchor: &str, [x, y]: [f64; 2], text: &str) {
        let (x, y) = (number(x), number(y));
        let _ = writeln!(
            self.out,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x}\" y=\"{y}\">{}</text>",
            escaped(text)
        );
    }

    /// The whole of it.
    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

/// A coordinate: a hundredth of a pixel is enough.
pub fn number(value: f64) -> String {
    format!("{value:.2}")
}

fn escaped(text: &str) -> String {
    let signs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;")];
    signs.iter().fold(text.to_owned(), |text, (sign, name)| text.replace(sign, name))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The elements of an SVG with their attributes, once it has been seen that each is closed
    /// where it must be, that nothing runs, and that nothing comes from elsewhere.
    pub fn elements(svg: &str) -> Vec<(String, Vec<(String, String)>)> {
        let (mut open, mut found) = (Vec::new(), Vec::new());
        let mut rest = svg;
        while let Some((before, tag)) = rest.split_once('<') {
            assert!(!before.contains('>'), "{before}");
            let names = before.matches('&').count();
            let known =
                ["&amp;", "&lt;", "&gt;", "&quot;"].map(|name| before.matches(name).count());
            assert_eq!(names, known.iter().sum::<usize>(), "{before}");
            let (tag, after) = tag.split_once('>').expect("a tag ends");
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            let mut pairs = Vec::new();
            while let Some((key, value)) = attributes.trim_start().split_once("=\"") {
                let (value, after) = value.split_once('"').expect("a value ends");
                assert!(!key.starts_with("on") && !key.contains(' '), "{key}");
                pairs.push((key.to_owned(), value.to_owned()));
                attributes = after;
            }
            assert_eq!(attributes, "", "{tag}");
            assert!(name != "script" && pairs.iter().all(|(key, _)| !key.contains("href")));
            if !closed {
                open.push(name.to_owned());
            }
            found.push((name.to_owned(), pairs));
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
        found
    }

    /// A number among the attributes of an element.
    pub fn value(attributes: &[(String, String)], name: &str) -> f64 {
        let found = attributes.iter().find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or(f64::NAN)
    }

    #[test]
    fn what_is_written_is_well_formed() {
        let mut svg = Svg::new(72.0, 42.0, "a < b & \"c\"");
        svg.line("axis", [1.0, 2.0], [3.0, 4.005]);
        svg.text("small", "middle", [1.0, 2.0], "1 > 0");
        svg.element("circle", &[("cx", number(1.5))], "so & so");
        let text = svg.finish();
        let elements = elements(&text);
        let names: Vec<&str> = elements.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["svg", "title", "style", "rect", "line", "text", "circle", "title"];
        assert_eq!(names, expected);
        assert!(text.contains("<title>a &lt; b &amp; &quot;c&quot;</title>"), "{text}");
        assert!((value(&elements[6].1, "cx") - 1.5).abs() < 1e-9);
    }
}
