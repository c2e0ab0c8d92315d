//! The page of pictures: nearest neighbours, a map of features, attention,
//! augmented pairs.
//!
//! As the report it is one file, and its content security policy forbids the
//! browser to ask for anything: pictures are data URIs.

pub mod picture;
mod sections;

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use image::RgbImage;
use serde_json::json;

use super::page::escape;
use crate::checkpoint::atomic;
use picture::Sheet;

/// All that the page shows. Pictures are as small as they shall be.
pub struct Show {
    pub title: String,
    /// In a sentence.
    pub subtitle: String,
    pub queries: Vec<Query>,
    pub map: Map,
    /// Or why there is none.
    pub attention: Result<Attention, String>,
    /// Or why there are none.
    pub pairs: Result<Pairs, String>,
    /// Words and what they say, in order.
    pub protocol: Vec<(String, String)>,
}

/// A picture with its name and class.
pub struct Labelled {
    pub picture: RgbImage,
    pub name: String,
    pub class: Option<String>,
}

/// A picture and its nearest neighbours, nearest first.
pub struct Query {
    pub asked: Labelled,
    pub near: Vec<(Labelled, f32)>,
}

impl Query {
    /// Whether a neighbour has the picture's class; none where one has no class.
    pub fn is_right(&self, near: &Labelled) -> Option<bool> {
        Some(self.asked.class.as_ref()? == near.class.as_ref()?)
    }
}

/// Features as points of planes.
pub struct Map {
    pub names: Vec<String>,
    pub labels: Vec<Option<u32>>,
    pub classes: Vec<String>,
    /// Their pictures in order.
    pub sheet: Sheet,
    pub planes: Vec<Plane>,
}

/// One way of placing the points.
pub struct Plane {
    pub name: &'static str,
    /// What one has to know to read it.
    pub words: String,
    pub points: Vec<[f64; 2]>,
}

/// The class token's attention over pictures.
pub struct Attention {
    /// Of which block, of how many.
    pub words: String,
    /// Patches along a side.
    pub side: usize,
    pub looked: Vec<Look>,
}

/// Attention over one picture.
pub struct Look {
    pub picture: RgbImage,
    pub name: String,
    pub class: Option<String>,
    /// For each head the weights of the class token and of all patches.
    pub heads: Vec<Vec<f32>>,
}

impl Look {
    /// The mean over the heads.
    pub fn mean(&self) -> Vec<f32> {
        let tokens = self.heads.first().map_or(0, Vec::len);
        let mean = |at: usize| self.heads.iter().map(|head| head[at]).sum::<f32>();
        let count = self.heads.len() as f32;
        (0..tokens).map(|at| mean(at) / count).collect()
    }
}

/// Training pictures with the views that a step sees of them.
pub struct Pairs {
    pub words: String,
    pub pairs: Vec<Pair>,
}

pub struct Pair {
    /// The whole picture.
    pub picture: RgbImage,
    /// Its size before it was made smaller.
    pub size: (u32, u32),
    pub name: String,
    pub views: Vec<View>,
}

/// A view as the encoder sees it.
pub struct View {
    pub picture: RgbImage,
    /// x, y, width and height of what was cut out.
    pub cut: [u32; 4],
    /// What was done to it, in order.
    pub words: Vec<String>,
}

/// Writes the page; returns its size in bytes.
///
/// # Errors
/// If a picture cannot be encoded, or the file not be written.
pub fn write(show: &Show, path: &Path) -> Result<usize> {
    let page = page(show)?;
    atomic::write_file(path, page.as_bytes())?;
    Ok(page.len())
}

fn page(show: &Show) -> Result<String> {
    let title = escape(&show.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
         form-action 'none'\">\n<title>{title}</title>\n<style>\n{}{}</style>\n</head>\n<body>\n\
         <header><div><h1>{title}</h1>\n<p>{}</p></div>\
         <button id=\"theme\" type=\"button\">Theme: system</button></header>\n<main>\n\
         <nav aria-label=\"Sections\"><a href=\"#neighbours\">Nearest neighbours</a> \
         <a href=\"#map\">Map</a> <a href=\"#attention\">Attention</a> \
         <a href=\"#pairs\">Augmented pairs</a> <a href=\"#protocol\">Protocol</a></nav>\n",
        include_str!("../page/style.css"),
        include_str!("show.css"),
        escape(&show.subtitle),
    );
    sections::neighbours(&mut out, &show.queries)?;
    sections::map(&mut out, &show.map);
    sections::attention(&mut out, &show.attention)?;
    sections::pairs(&mut out, &show.pairs)?;
    sections::protocol(&mut out, &show.protocol);
    write!(
        out,
        "</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{}</script>\n\
         </body>\n</html>\n",
        data(show),
        include_str!("show.js"),
    )?;
    Ok(out)
}

/// What the script needs, as it may stand in a script element.
fn data(show: &Show) -> String {
    let map = &show.map;
    let planes = map.planes.iter().map(
        |plane| json!({"name": plane.name, "words": plane.words, "points": placed(&plane.points)}),
    );
    let attention = show.attention.as_ref().ok().map(|attention| {
        let of = |look: &Look| {
            let all = std::iter::once(look.mean()).chain(look.heads.iter().cloned());
            all.map(|weights| weights.into_iter().map(four_digits).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        let weights: Vec<_> = attention.looked.iter().map(of).collect();
        json!({"side": attention.side, "weights": weights})
    });
    let data = json!({
        "map": {
            "names": map.names,
            "labels": map.labels,
            "classes": map.classes,
            "sheet": {
                "uri": map.sheet.uri,
                "side": map.sheet.side,
                "columns": map.sheet.columns,
            },
            "planes": planes.collect::<Vec<_>>(),
        },
        "attention": attention,
    });
    data.to_string().replace('<', "\\u003c")
}

/// Whole numbers in 0..=10,000, the same scale along both axes, y upwards.
fn placed(points: &[[f64; 2]]) -> Vec<[u32; 2]> {
    let bounds = |axis: usize| {
        let along = points.iter().map(|p| p[axis]);
        let least = along.clone().fold(f64::INFINITY, f64::min);
        (least, along.fold(f64::NEG_INFINITY, f64::max))
    };
    let [x, y] = [bounds(0), bounds(1)];
    let range = (x.1 - x.0).max(y.1 - y.0).max(f64::MIN_POSITIVE);
    let place = |value: f64, (least, greatest): (f64, f64)| {
        let middle = (least + greatest) / 2.0;
        (5000.0 + 10_000.0 * (value - middle) / range).round() as u32
    };
    let each = |p: &[f64; 2]| [place(p[0], x), place(p[1], y)];
    points.iter().map(each).collect()
}

/// Weights are told as percents with two digits: more would only make the file
/// larger.
fn four_digits(x: f32) -> serde_json::Number {
    let rounded: f64 = format!("{x:.3e}").parse().unwrap_or(0.0);
    serde_json::Number::from_f64(rounded).unwrap_or_else(|| 0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_keep_their_proportions() {
        let found = placed(&[[-1.0, 5.0], [3.0, 6.0], [1.0, 5.5]]);
        assert_eq!(found, [[0, 3750], [10_000, 6250], [5000, 5000]]);
        assert_eq!(placed(&[[7.0, 7.0]]), [[5000, 5000]]);
    }

    #[test]
    fn weights_have_four_digits() {
        for (x, expected) in [
            (0.123_456, "0.1235"),
            (1.0, "1.0"),
            (3.21e-7, "3.21e-7"),
            (0.0, "0.0"),
        ] {
            assert_eq!(four_digits(x).to_string(), expected);
        }
    }
}
