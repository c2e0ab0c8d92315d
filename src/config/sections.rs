//! The sections of a configuration. Those whose defaults are constants are
//! read straight from the file; the others have a written form in `written`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where pictures come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// A folder, tar file, folder of tar files, CSV list or data set as it was
    /// published (docs/data.md), found out by looking; or "synthetic".
    pub path: String,
    /// The test split, if it is not found inside `path`.
    pub test: Option<String>,
    /// Labelled training pictures for the held-out kNN, `knn` and `probe`,
    /// where those of `path` have no labels or others are wanted.
    pub labelled: Option<String>,
    /// What "synthetic" draws.
    pub synthetic: Synthetic,
    /// Decoding threads; absent: one a core.
    pub workers: Option<usize>,
    /// Batches decoded ahead of the device.
    pub prefetch: usize,
    /// Share of pictures that may be corrupt before the run stops.
    pub corrupt_limit: f64,
    /// Turn pictures as their EXIF orientation says.
    pub exif: bool,
}

/// The `data.path` that names procedural pictures.
pub const SYNTHETIC: &str = "synthetic";

impl Default for Data {
    fn default() -> Self {
        Self {
            path: SYNTHETIC.to_owned(),
            test: None,
            labelled: None,
            synthetic: Synthetic::default(),
            workers: None,
            prefetch: 4,
            corrupt_limit: 0.01,
            exif: true,
        }
    }
}

impl Data {
    /// Decoding threads on this machine: `workers`, else one a core.
    pub fn worker_count(&self) -> usize {
        self.workers
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Whether the pictures are procedural.
    pub fn is_synthetic(&self) -> bool {
        self.path == SYNTHETIC
    }
}

/// Procedural pictures: textured shapes of `classes` classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Synthetic {
    pub classes: usize,
    /// Training pictures in all.
    pub images: usize,
    /// Test pictures in all.
    pub test_images: usize,
    /// Side, pixels.
    pub size: usize,
    pub seed: u64,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            classes: 8,
            images: 8192,
            test_images: 2048,
            size: 48,
            seed: 0,
        }
    }
}

/// The two random views of a picture. Pairs are (view 1, view 2). Defaults
/// are those of the ViT recipes of the authors' code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Smallest share of the picture's area that a crop keeps; up to 1.
    pub crop_min: f64,
    /// Strength of brightness, contrast, saturation and hue: factors are
    /// U(max(0, 1 - s), 1 + s), the hue's shift U(-s, s) turns.
    pub jitter: [f64; 4],
    pub jitter_p: f64,
    pub gray_p: f64,
    /// Range of the Gaussian's standard deviation, pixels.
    pub blur_sigma: [f64; 2],
    pub blur_p: [f64; 2],
    pub solarize_p: [f64; 2],
    pub flip_p: f64,
    /// Random operations on each picture after the crop (RandAugment); absent:
    /// none. Of training with labels.
    pub rand_augment: Option<RandAugment>,
    /// How often a rectangle of a picture is replaced by noise, after
    /// everything else. Of training with labels.
    pub erase_p: f64,
    /// Subtracted from red, green, blue in 0..1.
    pub mean: [f64; 3],
    /// Divides them then.
    pub std: [f64; 3],
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            crop_min: 0.08,
            jitter: [0.4, 0.4, 0.2, 0.1],
            jitter_p: 0.8,
            gray_p: 0.2,
            blur_sigma: [0.1, 2.0],
            blur_p: [1.0, 0.1],
            solarize_p: [0.0, 0.2],
            flip_p: 0.5,
            rand_augment: None,
            erase_p: 0.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

/// RandAugment (Cubuk et al. 2020) with timm's "increasing" operations; the
/// defaults are DeiT's, `rand-m9-mstd0.5-inc1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations tried on a picture, each with probability 1/2.
    pub operations: usize,
    /// Mean of the magnitude, of 10.
    pub magnitude: f64,
    /// Its standard deviation; drawn values are clamped to 0..10.
    pub magnitude_std: f64,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            operations: 2,
            magnitude: 9.0,
            magnitude_std: 0.5,
        }
    }
}

/// The device mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mesh {
    /// Devices that share the batch.
    pub data: usize,
    /// How long a step may take, on all hosts, until the run gives up.
    pub deadline_seconds: u64,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            data: 1,
            deadline_seconds: 1800,
        }
    }
}

/// What a process takes of a GPU. Devices of other kinds take no notice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// Share of each GPU's memory that is taken at most, up to 1; absent: the
    /// plugin's own choice, 0.75.
    pub memory_fraction: Option<f64>,
    /// Take it all at the start, which keeps it in one piece; absent: the
    /// plugin's own choice, true.
    pub preallocate: Option<bool>,
    pub allocator: Option<Allocator>,
}

/// Who deals out a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Allocator {
    /// The plugin's choice.
    Default,
    /// Best fit with coalescing, in memory of its own.
    Bfc,
    /// CUDA's own pools, shared better with other programs.
    CudaAsync,
    /// Each array from the driver: slow, but nothing is held back.
    Platform,
}

/// How the transformer trunk is lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lowering {
    /// Chosen for the target at compile time.
    #[default]
    Auto,
    Unrolled,
    /// Unrolled, activations of attention recomputed behind a barrier.
    RematAttention,
    /// Unrolled, activations of the MLP recomputed behind a barrier.
    RematMlp,
    /// Unrolled, all activations of a block recomputed behind a barrier.
    Remat,
    /// One loop over the blocks, activations recomputed.
    Scan,
}

/// How both crops of a picture pass through an encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CropPass {
    /// As one batch: weights are read once.
    #[default]
    Stacked,
    /// One after the other.
    Apart,
}

impl CropPass {
    /// As configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stacked => "stacked",
            Self::Apart => "apart",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerSharding {
    /// Every device holds the whole optimizer state.
    #[default]
    Replicated,
    /// Each tensor of it, and the update of its parameter, is split over the
    /// devices along the first axis that they divide; where they divide none,
    /// it is replicated.
    Zero1,
}

impl OptimizerSharding {
    /// As configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replicated => "replicated",
            Self::Zero1 => "zero1",
        }
    }
}

/// What the loop does when the run is found unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnhealthy {
    /// Says so and goes on.
    #[default]
    Continue,
    /// Says so, saves and stops.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    pub every_steps: u64,
    /// The newest checkpoints to keep.
    pub keep_last: usize,
    /// Keeps for good those whose step is a multiple of this; absent: none.
    /// A multiple of `every_steps`.
    pub keep_every: Option<u64>,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            every_steps: 500,
            keep_last: 3,
            keep_every: None,
        }
    }
}

/// What each step tells of its health, and the kNN monitor on training batches
/// (appendix A, "kNN monitor").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Monitor {
    /// Steps between classifications; 0: never.
    pub knn_every: u64,
    /// Neighbours that vote; fewer where the queue is smaller.
    pub knn_k: usize,
    /// A neighbour votes with weight exp(cosine / temperature).
    pub knn_temperature: f64,
    /// Features in the queue; 0: no queue and no monitor; absent: see
    /// [`Monitor::queue_size`].
    pub queue: Option<usize>,
    /// Whether each step tells gradient norms by layer, logits and how far
    /// features spread.
    pub in_step: bool,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            knn_every: 20,
            knn_k: 200,
            knn_temperature: 0.07,
            queue: None,
            in_step: true,
        }
    }
}

impl Monitor {
    /// Features that the queue holds for a training set of `images`: 10% of
    /// it, or 4096 if that is more; never more than half of the set; rounded
    /// down to whole batches, so that an insertion never wraps around. 0
    /// means that the monitor is off.
    pub fn queue_size(&self, images: usize, batch: usize) -> usize {
        let wanted = self.queue.unwrap_or_else(|| (images / 10).max(4096));
        let bounded = wanted.min(images / 2);
        bounded - bounded % batch.max(1)
    }
}

/// Held-out kNN with the base encoder in evaluation form. It runs at the end
/// in any case, where there is a test split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Eval {
    /// Epochs between evaluations; excludes `every_steps`.
    pub every_epochs: Option<f64>,
    pub every_steps: Option<u64>,
    /// Evaluate before the first step too.
    pub at_start: bool,
    pub knn_k: usize,
    pub knn_temperature: f64,
    /// Training pictures in the bank at most; absent: all.
    pub bank_limit: Option<usize>,
    /// Test pictures classified at most; absent: all.
    pub query_limit: Option<usize>,
}

impl Default for Eval {
    fn default() -> Self {
        Self {
            every_epochs: None,
            every_steps: None,
            at_start: true,
            knn_k: 20,
            knn_temperature: 0.07,
            bank_limit: None,
            query_limit: None,
        }
    }
}

impl Eval {
    /// Steps between evaluations, if there are any before the end.
    pub fn interval(&self, steps_per_epoch: u64) -> Option<u64> {
        let epochs = |e: f64| (e * steps_per_epoch as f64).round().max(1.0) as u64;
        self.every_steps.or(self.every_epochs.map(epochs))
    }
}
