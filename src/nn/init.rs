//! Where variables start: drawn on the host from a counter-based generator
//! keyed by seed and name, so that the start is the same everywhere.

use super::Spec;
use crate::rng::{Purpose, Stream};

/// How a variable starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    /// Uniform within plus and minus this bound.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// The norm of each row of the sibling variable `of`, whose rows have
    /// `inputs` numbers, uniform within plus and minus `bound`.
    RowNorms {
        of: &'static str,
        inputs: usize,
        bound: f64,
    },
    /// [`super::sincos_2d`] for this many patches along a side.
    Sincos2d {
        side: usize,
    },
}

impl Init {
    /// Xavier's uniform bound (Glorot and Bengio 2010).
    pub fn xavier(inputs: usize, outputs: usize) -> Self {
        Self::Uniform((6.0 / (inputs + outputs) as f64).sqrt())
    }

    /// He's for convolutions before a ReLU (He et al. 2015), by their outputs.
    pub fn he_fan_out(outputs: usize) -> Self {
        Self::Normal((2.0 / outputs as f64).sqrt())
    }

    /// PyTorch's default of linear layers and convolutions.
    pub fn fan_in(inputs: usize) -> Self {
        Self::Uniform((inputs as f64).powf(-0.5))
    }
}

/// The first values of a variable, row-major.
pub fn materialise(spec: &Spec, seed: u64) -> Vec<f32> {
    let n = spec.elements();
    let mut stream = Stream::new(seed, Purpose::Init, hash(&spec.name));
    match spec.init {
        Init::Zeros => vec![0.0; n],
        Init::Ones => vec![1.0; n],
        Init::Uniform(bound) => (0..n).map(|_| stream.range(-bound, bound) as f32).collect(),
        Init::Normal(std) => (0..n).map(|_| (std * stream.normal()) as f32).collect(),
        Init::RowNorms { of, inputs, bound } => {
            let path = spec.name.rsplit_once('.');
            let name = path.map_or(of.to_owned(), |(path, _)| format!("{path}.{of}"));
            let rows = Spec::trained(name, &[n, inputs], Init::Uniform(bound));
            let norm = |row: &[f32]| {
                row.iter()
                    .map(|x| f64::from(*x).powi(2))
                    .sum::<f64>()
                    .sqrt()
            };
            let rows = materialise(&rows, seed);
            rows.chunks_exact(inputs)
                .map(|row| norm(row) as f32)
                .collect()
        }
        Init::Sincos2d { side } => {
            let dim = spec.dims.last().copied().unwrap_or_default();
            let mut table = super::sincos_2d(side, dim);
            // Without a class token, without its zeros.
            table.split_off(table.len() - n)
        }
    }
}

/// 64-bit FNV-1a: names a variable's stream of draws.
fn hash(name: &str) -> (u32, u32) {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash >> 32) as u32, hash as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(name: &str, init: Init) -> Vec<f32> {
        materialise(&Spec::trained(name, &[200, 300], init), 3)
    }

    /// Mean and standard deviation.
    fn moments(x: &[f32]) -> (f64, f64) {
        let n = x.len() as f64;
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let square = x
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / n;
        (mean, square.sqrt())
    }

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let bound = (6.0f64 / 500.0).sqrt();
        for (init, std) in [
            (Init::xavier(200, 300), bound / 3f64.sqrt()),
            (Init::fan_in(300), (1.0 / 900.0f64).sqrt()),
            (Init::Normal(0.01), 0.01),
            (Init::he_fan_out(50), 0.2),
        ] {
            let (mean, found) = moments(&draw("w", init));
            assert!(mean.abs() < 0.02 * std, "{init:?}: mean {mean}");
            assert!(
                (found / std - 1.0).abs() < 0.01,
                "{init:?}: {found}, not {std}"
            );
        }
        let x = draw("w", Init::Uniform(0.5));
        assert!(x.iter().all(|v| v.abs() <= 0.5) && x.iter().any(|v| v.abs() > 0.499));
    }

    #[test]
    fn each_name_and_seed_has_draws_of_its_own() {
        let init = Init::Uniform(1.0);
        assert_eq!(draw("a.weight", init), draw("a.weight", init));
        assert_ne!(draw("a.weight", init), draw("b.weight", init));
        let spec = Spec::trained("a", &[8], init);
        assert_ne!(materialise(&spec, 0), materialise(&spec, 1));
    }

    #[test]
    fn lengths_are_those_of_the_directions_that_start_beside_them() {
        let specs = crate::nn::weight_norm_specs(16, 2);
        let (g, v) = (materialise(&specs[0], 5), materialise(&specs[1], 5));
        assert_eq!((g.len(), v.len()), (16, 16 * 12));
        for (length, row) in g.iter().zip(v.chunks_exact(12)) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length / norm - 1.0).abs() < 1e-6, "{length}, not {norm}");
        }
        assert_ne!(g[0], g[1]);
    }

    #[test]
    fn the_class_token_and_the_first_patch_stand_out_in_positions() {
        let spec = Spec::trained("pos_embed", &[1, 5, 8], Init::Sincos2d { side: 2 });
        let table = materialise(&spec, 0);
        assert_eq!(table.len(), 40);
        assert_eq!(table[..8], [0.0; 8]);
        assert_eq!(table[8..16], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    }
}
