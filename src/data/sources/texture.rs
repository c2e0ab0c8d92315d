//! Two-coloured textures: each covers half the plane with either colour.

use std::f64::consts::PI;

use crate::rng::Stream;

/// The kinds, told apart by small patches in any rotation or mirror image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Parallel bands.
    Stripes,
    /// A chessboard.
    Checks,
    /// Discs on a square lattice.
    Dots,
    /// Fine bands, in squares whose directions alternate.
    Weave,
    /// Bands that turn at right angles.
    Zigzag,
    /// Rings on a square lattice.
    Rings,
    /// Smooth blotches.
    Blotches,
    /// Small cells of random colour.
    Speckle,
}

pub const TEXTURES: [Kind; 8] = [
    Kind::Stripes,
    Kind::Checks,
    Kind::Dots,
    Kind::Weave,
    Kind::Zigzag,
    Kind::Rings,
    Kind::Blotches,
    Kind::Speckle,
];

/// Side of the table of random values behind blotches and speckle.
const TABLE: usize = 32;

/// One drawn texture.
pub struct Texture {
    kind: Kind,
    /// In units of the picture's side.
    period: f64,
    /// In periods.
    phase: (f64, f64),
    /// Uniform in -1..1; empty for the regular kinds.
    table: Vec<f64>,
}

impl Texture {
    pub fn draw(kind: Kind, stream: &mut Stream) -> Self {
        let period = stream.range(0.16, 0.20);
        let phase = (stream.uniform(), stream.uniform());
        let random = matches!(kind, Kind::Blotches | Kind::Speckle);
        let cells = if random { TABLE * TABLE } else { 0 };
        Self {
            kind,
            period,
            phase,
            table: (0..cells).map(|_| stream.range(-1.0, 1.0)).collect(),
        }
    }

    /// Which colour a point has; coordinates in units of the picture's side.
    pub fn at(&self, x: f64, y: f64) -> bool {
        let u = x / self.period + self.phase.0;
        let v = y / self.period + self.phase.1;
        let (a, b) = (fraction(u), fraction(v));
        let squared = (a - 0.5).powi(2) + (b - 0.5).powi(2);
        match self.kind {
            Kind::Stripes => a < 0.5,
            Kind::Checks => (a < 0.5) != (b < 0.5),
            // A disc of area 1/2.
            Kind::Dots => squared < 0.5 / PI,
            Kind::Weave => {
                let turned = fraction(0.5 * (u.floor() + v.floor())) == 0.0;
                fraction(2.0 * if turned { a } else { b }) < 0.5
            }
            Kind::Zigzag => {
                let bend = (fraction(0.5 * u) - 0.5).abs() * 2.0;
                fraction(v + bend) < 0.5
            }
            // Radii whose squares differ by 1/(2 pi).
            Kind::Rings => (0.23 - 0.5 / PI..0.23).contains(&squared),
            Kind::Blotches => self.smooth(1.7 * u, 1.7 * v) > 0.0,
            Kind::Speckle => self.cell((3.0 * u).floor(), (3.0 * v).floor()) > 0.0,
        }
    }

    fn cell(&self, i: f64, j: f64) -> f64 {
        let wrap = |k: f64| (k as i64).rem_euclid(TABLE as i64) as usize;
        self.table[wrap(j) * TABLE + wrap(i)]
    }

    /// The table, smoothly interpolated.
    fn smooth(&self, u: f64, v: f64) -> f64 {
        let (i, j) = (u.floor(), v.floor());
        let ease = |t: f64| t * t * (3.0 - 2.0 * t);
        let (s, t) = (ease(u - i), ease(v - j));
        let row = |j: f64| self.cell(i, j) * (1.0 - s) + self.cell(i + 1.0, j) * s;
        row(j) * (1.0 - t) + row(j + 1.0) * t
    }
}

/// Of `rem_euclid(1.0)` this is the fast form; it is what rendering spends
/// its time on.
fn fraction(x: f64) -> f64 {
    x - x.floor()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    /// Half and half, so that the mean colour tells nothing.
    #[test]
    fn each_texture_covers_half() {
        for kind in TEXTURES {
            let (mut inside, mut total) = (0, 0);
            for item in 0..40 {
                let mut stream = Stream::new(1, Purpose::Test, (0, item));
                let texture = Texture::draw(kind, &mut stream);
                for i in 0..10_000 {
                    let at = |k: i32| f64::from(k) / 100.0 * 3.0;
                    inside += i32::from(texture.at(at(i % 100), at(i / 100)));
                    total += 1;
                }
            }
            let share = f64::from(inside) / f64::from(total);
            assert!((share - 0.5).abs() < 0.02, "{kind:?}: {share}");
        }
    }
}
