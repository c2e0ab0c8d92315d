//! Procedural pictures: one large textured shape on a smooth ground.
//!
//! A class is a texture and a shape. Colours, place, size, rotation, phase
//! and ground are drawn independently of the class, and every texture covers
//! half of the shape with either of its two colours, so that colour and
//! layout alone give no label; the texture does.
//!
//! Colours are pale and grounds dim on purpose. A contrastive method learns
//! first whatever tells two pictures apart most easily; were that the colour,
//! a short run would learn nothing of the classes.

use std::f64::consts::TAU;

use anyhow::Result;

use super::texture::{TEXTURES, Texture};
use super::{Opened, Source};
use crate::bad_input;
use crate::data::dataset::Part;
use crate::data::decode::Picture;
use crate::rng::{Purpose, Stream};

/// The first index of the test pictures: the same ones whatever the number
/// of training pictures.
const TEST_START: u32 = 1 << 31;
/// Samples a pixel, along each axis.
const SUPERSAMPLE: u32 = 2;

type Rgb = [f64; 3];

/// The outline of what the texture fills.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Disc,
    Square,
    Triangle,
    Cross,
}

const SHAPES: [Shape; 4] = [Shape::Disc, Shape::Square, Shape::Triangle, Shape::Cross];

/// Which pictures are generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Number of classes.
    pub classes: u32,
    /// Number of training pictures; there is a quarter as many for testing.
    pub images: u32,
    /// Width and height in pixels.
    pub px: u32,
    pub seed: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            classes: 8,
            images: 4096,
            px: 64,
            seed: 0,
        }
    }
}

impl Spec {
    /// Reads `synthetic` or `synthetic:K=8,N=4096,px=64,seed=0` (any subset);
    /// `None` if the text does not begin like that.
    ///
    /// # Errors
    /// [`bad_input!`] on an unknown key or a value out of range.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let rest = match text.strip_prefix("synthetic") {
            Some("") => "",
            Some(rest) if rest.starts_with(':') => &rest[1..],
            _ => return Ok(None),
        };
        let mut spec = Self::default();
        for part in rest.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let number: u64 = value.parse().map_err(|_| {
                bad_input!("in {text:?}: expected KEY=NUMBER, found {part:?}; keys: K, N, px, seed")
            })?;
            let small = u32::try_from(number).unwrap_or(u32::MAX);
            match key {
                "K" => spec.classes = small,
                "N" => spec.images = small,
                "px" => spec.px = small,
                "seed" => spec.seed = number,
                _ => {
                    return Err(bad_input!(
                        "in {text:?}: unknown key {key:?}; keys: K, N, px, seed"
                    ));
                }
            }
        }
        spec.check()?;
        Ok(Some(spec))
    }

    /// # Errors
    /// [`bad_input!`] if a value is out of range.
    pub fn check(&self) -> Result<()> {
        let most = (TEXTURES.len() * SHAPES.len()) as u32;
        for (what, value, low, high) in [
            ("number of classes", self.classes, 1, most),
            ("number of pictures", self.images, 1, TEST_START - 1),
            ("side in pixels", self.px, 8, 4096),
        ] {
            if !(low..=high).contains(&value) {
                return Err(bad_input!(
                    "synthetic pictures: expected the {what} in {low}..={high}, found {value}"
                ));
            }
        }
        Ok(())
    }

    /// The class of a picture.
    pub fn class_of(&self, index: u32) -> u32 {
        index % self.classes
    }

    /// The name of a class.
    pub fn class_name(class: u32) -> String {
        format!("class_{class:02}")
    }

    /// Draws the picture of an index; its class is the index modulo the
    /// number of classes.
    pub fn render(&self, index: u32) -> Picture {
        let class = self.class_of(index);
        let mut stream = Stream::new(self.seed, Purpose::Synthetic, (0, index));
        Scene::draw(class, &mut stream).render(self.px)
    }
}

/// A picture before it is sampled. Coordinates are in units of its side.
struct Scene {
    texture: Texture,
    shape: Shape,
    centre: (f64, f64),
    radius: f64,
    /// Cosine and sine of the shape's rotation.
    turn: (f64, f64),
    /// The texture's two colours, then those of the ground's gradient.
    colours: [Rgb; 4],
    /// Direction of the ground's gradient.
    slope: (f64, f64),
}

impl Scene {
    /// Classes 0..8 have all textures; every further eight the same textures
    /// on another shape.
    fn draw(class: u32, stream: &mut Stream) -> Self {
        let (class, textures) = (class as usize, TEXTURES.len());
        let kind = TEXTURES[class % textures];
        let shape = SHAPES[(class + class / textures) % SHAPES.len()];
        let radius = stream.range(0.42, 0.58);
        let margin = 0.5 - 0.7 * radius;
        let centre = (
            0.5 + stream.range(-margin, margin),
            0.5 + stream.range(-margin, margin),
        );
        let angle = stream.range(0.0, TAU);
        let slope = stream.range(0.0, TAU);
        // The two colours differ in lightness, whichever is which, so that
        // the texture shows in grey too.
        let dark = stream.range(0.08, 0.22);
        let mut lightness = [dark, dark + stream.range(0.55, 0.65)];
        if stream.chance(0.5) {
            lightness.reverse();
        }
        let colours = [
            colour(stream, lightness[0]),
            colour(stream, lightness[1]),
            ground(stream),
            ground(stream),
        ];
        Self {
            texture: Texture::draw(kind, stream),
            shape,
            centre,
            radius,
            turn: (angle.cos(), angle.sin()),
            colours,
            slope: (slope.cos(), slope.sin()),
        }
    }

    fn render(&self, px: u32) -> Picture {
        let samples = px * SUPERSAMPLE;
        let mut sums = vec![[0.0; 3]; (px * px) as usize];
        for row in 0..samples {
            for column in 0..samples {
                let at = |i: u32| (f64::from(i) + 0.5) / f64::from(samples);
                let value = self.colour_at(at(column), at(row));
                let pixel = (row / SUPERSAMPLE) * px + column / SUPERSAMPLE;
                let sum: &mut Rgb = &mut sums[pixel as usize];
                (0..3).for_each(|c| sum[c] += value[c]);
            }
        }
        let scale = 255.0 / f64::from(SUPERSAMPLE * SUPERSAMPLE);
        let rgb = sums.iter().flatten().map(|sum| (sum * scale).round() as u8);
        Picture {
            width: px,
            height: px,
            rgb: rgb.collect(),
        }
    }

    fn colour_at(&self, x: f64, y: f64) -> Rgb {
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let (cos, sin) = self.turn;
        let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
        let [one, other, from, to] = self.colours;
        if self.shape.contains(u / self.radius, v / self.radius) {
            if self.texture.at(u, v) { one } else { other }
        } else {
            let (sx, sy) = self.slope;
            let t = (0.5 + 0.7 * (sx * (x - 0.5) + sy * (y - 0.5))).clamp(0.0, 1.0);
            [0, 1, 2].map(|c| from[c] + t * (to[c] - from[c]))
        }
    }
}

impl Shape {
    /// Whether a point is inside; the shape reaches about 1 from its centre,
    /// and all cover about the same area.
    fn contains(self, u: f64, v: f64) -> bool {
        match self {
            Self::Disc => u * u + v * v < 0.9,
            Self::Square => u.abs().max(v.abs()) < 0.84,
            Self::Triangle => {
                let slanted = 0.5 * v + 0.866 * u.abs();
                v > -0.74 && slanted < 0.74
            }
            Self::Cross => u.abs().min(v.abs()) < 0.42 && u.abs().max(v.abs()) < 1.05,
        }
    }
}

/// A colour of random hue and little saturation around a lightness.
fn colour(stream: &mut Stream, lightness: f64) -> Rgb {
    let hue = stream.uniform();
    let chroma = stream.range(0.0, 0.1);
    [0.0, 1.0, 2.0].map(|third| {
        let wave = (TAU * (hue + third / 3.0)).cos();
        (lightness + chroma * wave).clamp(0.0, 1.0)
    })
}

fn ground(stream: &mut Stream) -> Rgb {
    let lightness = stream.range(0.35, 0.65);
    colour(stream, lightness)
}

struct Synthetic {
    spec: Spec,
    start: u32,
    count: u32,
}

/// The training pictures (also for [`Part::All`]) or the test pictures.
pub fn open(spec: Spec, part: Part) -> Opened {
    let (start, count) = match part {
        Part::All | Part::Train | Part::Unlabelled => (0, spec.images),
        Part::Test => (TEST_START, spec.images.div_ceil(4)),
    };
    let classes = (0..spec.classes).map(Spec::class_name).collect();
    let source = Box::new(Synthetic { spec, start, count });
    Opened { source, classes }
}

impl Source for Synthetic {
    fn len(&self) -> usize {
        self.count as usize
    }

    fn kind(&self) -> String {
        let Spec {
            classes,
            images,
            px,
            seed,
        } = self.spec;
        format!("synthetic:K={classes},N={images},px={px},seed={seed}")
    }

    fn name(&self, index: usize) -> String {
        let index = self.start + index as u32;
        let class = Spec::class_name(self.spec.class_of(index));
        format!("{class}/{index:010}")
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(self.spec.class_of(self.start + index as u32))
    }

    fn size(&self, _: usize) -> Result<u64> {
        Ok(u64::from(self.spec.px).pow(2) * 3)
    }

    fn decode(&self, index: usize, _: bool) -> Result<Picture> {
        Ok(self.spec.render(self.start + index as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let parse = |text: &str| Spec::parse(text);
        assert_eq!(parse("synthetic").unwrap(), Some(Spec::default()));
        let spec = parse("synthetic:K=3,px=32").unwrap().unwrap();
        assert_eq!((spec.classes, spec.images, spec.px), (3, 4096, 32));
        assert_eq!(parse("./synthetic").unwrap(), None);
        assert_eq!(parse("synthetic_set").unwrap(), None);
        for (text, word) in [
            ("synthetic:k=3", "unknown key"),
            ("synthetic:K", "KEY=NUMBER"),
            ("synthetic:K=-1", "KEY=NUMBER"),
            ("synthetic:K=33", "1..=32"),
            ("synthetic:N=0", "number of pictures"),
            ("synthetic:px=99999999999", "8..=4096"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn pictures_repeat_and_differ() {
        let spec = Spec {
            px: 16,
            ..Spec::default()
        };
        assert_eq!(spec.render(5), spec.render(5));
        assert_ne!(spec.render(5), spec.render(13));
        assert_ne!(spec.render(5), spec.render(5 + TEST_START));
    }

    /// Shapes of one area: otherwise a mean colour would tell them apart by
    /// how much ground is left.
    #[test]
    fn shapes_cover_about_the_same_area() {
        for shape in SHAPES {
            let n = 400;
            let at = |i: i32| (f64::from(i) + 0.5) / f64::from(n) * 3.0 - 1.5;
            let inside = (0..n * n).filter(|i| shape.contains(at(i % n), at(i / n)));
            let area = inside.count() as f64 * 9.0 / f64::from(n * n);
            assert!((2.6..3.1).contains(&area), "{shape:?}: {area}");
        }
    }
}
