//! How other tools call the tensors of a backbone. Our own names are those of
//! timm's ViT and torchvision's ResNet.

use clap::ValueEnum;

use super::source::Entry;

/// Who wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Layout {
    /// The authors' checkpoints, and our own: encoders, heads and predictor
    MocoV3,
    /// timm's ViT and ResNet, as DeiT has them too
    Timm,
    /// DINO's: a backbone alone, or teacher and student
    Dino,
    /// MAE's: an encoder, with or without its decoder
    Mae,
    /// Hugging Face's ViTModel
    Hf,
    /// torchvision's ResNet
    Torchvision,
}

/// Where a tensor of a file belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The backbone, under our name without `base_encoder.`.
    Backbone(String),
    /// There, the rows of queries (0), keys (1) or values (2).
    Third(String, usize),
    /// Encoders, heads and predictor beside it, under our full name.
    Beside(String),
    /// What we have no use for, in words.
    Aside(&'static str),
    /// Nowhere in this layout.
    Nowhere,
}

impl Layout {
    /// As the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MocoV3 => "moco-v3",
            Self::Timm => "timm",
            Self::Dino => "dino",
            Self::Mae => "mae",
            Self::Hf => "hf",
            Self::Torchvision => "torchvision",
        }
    }

    /// The layout that a file's names are of; [`Layout::Timm`] where nothing
    /// tells another.
    pub fn of(entries: &[Entry]) -> Self {
        let any = |part: &str| entries.iter().any(|entry| entry.name.contains(part));
        let begins = |part: &str| {
            let bare = entries.iter().map(|entry| without_module(&entry.name));
            bare.into_iter().any(|name| name.starts_with(part))
        };
        match () {
            () if begins("base_encoder.") => Self::MocoV3,
            () if any(".layernorm_before.") => Self::Hf,
            () if begins("decoder_blocks.") || begins("mask_token") => Self::Mae,
            () if begins("backbone.") || begins("head.mlp.") => Self::Dino,
            () if begins("layer1.") => Self::Torchvision,
            () => Self::Timm,
        }
    }

    /// Heads that this layout's models of a width have; none where only the
    /// file's writer knows.
    pub fn heads(self, dim: usize) -> Option<usize> {
        match (self, dim) {
            (Self::Dino, 192 | 384 | 768) => Some(dim / 64),
            (Self::Mae, 768) => Some(12),
            (Self::Mae, 1024 | 1280) => Some(16),
            _ => None,
        }
    }

    /// Where a tensor belongs. Those of a backbone are not yet known to be of
    /// its model.
    pub fn place(self, name: &str) -> Place {
        let name = without_module(name);
        if name.ends_with(".num_batches_tracked") {
            return Place::Aside("counters of batches");
        }
        match self {
            Self::MocoV3 => of_moco(name),
            Self::Hf => of_hf(name),
            Self::Timm | Self::Dino | Self::Mae | Self::Torchvision => {
                let name = name.strip_prefix("backbone.").unwrap_or(name);
                match name {
                    _ if name.starts_with("head.") || name.starts_with("fc.") => {
                        Place::Aside("its head")
                    }
                    _ if self == Self::Mae
                        && (name.starts_with("decoder_") || name == "mask_token") =>
                    {
                        Place::Aside("its decoder")
                    }
                    _ => Place::Backbone(name.to_owned()),
                }
            }
        }
    }
}

/// DataParallel's prefix says nothing.
fn without_module(name: &str) -> &str {
    name.strip_prefix("module.").unwrap_or(name)
}

fn of_moco(name: &str) -> Place {
    if let Some(rest) = name.strip_prefix("base_encoder.") {
        return match rest.starts_with("head.") || rest.starts_with("fc.") {
            true => Place::Beside(name.to_owned()),
            false => Place::Backbone(rest.to_owned()),
        };
    }
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match () {
        () if begins(&["momentum_encoder.", "predictor."]) => Place::Beside(name.to_owned()),
        () if begins(&["optimizer.", "knn_queue.", "prototypes.", "swav_queue"]) => {
            Place::Aside("other state of its training")
        }
        () => Place::Nowhere,
    }
}

/// Ours and Hugging Face's. Inner ones come after `encoder.layer.N.` where ours
/// come after `blocks.N.`.
const OUTER: [(&str, &str); 4] = [
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("norm", "layernorm"),
];
const INNER: [(&str, &str); 5] = [
    ("norm1", "layernorm_before"),
    ("attn.proj", "attention.output.dense"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
];
const THIRDS: [&str; 3] = [
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
];
/// What transformers 5 calls some of them in memory, after `layers.N.`; its
/// files have the other names, as a rule.
const IN_MEMORY: [(&str, &str); 3] = [
    ("attn.proj", "attention.o_proj"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
];
const THIRDS_IN_MEMORY: [&str; 3] = ["attention.q_proj", "attention.k_proj", "attention.v_proj"];

fn of_hf(name: &str) -> Place {
    let name = name.strip_prefix("vit.").unwrap_or(name);
    for (prefix, what) in [
        ("classifier.", "its head"),
        ("pooler.", "its pooler"),
        ("decoder.", "its decoder"),
        ("embeddings.mask_token", "its mask token"),
    ] {
        if name.starts_with(prefix) {
            return Place::Aside(what);
        }
    }
    let renamed = |pairs: &[(&str, &str)], name: &str| {
        pairs.iter().find_map(|(ours, theirs)| {
            let rest = name.strip_prefix(theirs)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| format!("{ours}{rest}"))
        })
    };
    let block = name.strip_prefix("encoder.layer.");
    let block = block.or(name.strip_prefix("layers."));
    let Some((number, inner)) = block.and_then(|rest| rest.split_once('.')) else {
        return renamed(&OUTER, name).map_or(Place::Nowhere, Place::Backbone);
    };
    for (third, theirs) in THIRDS.iter().chain(&THIRDS_IN_MEMORY).enumerate() {
        let third = third % 3;
        if let Some(rest) = inner.strip_prefix(theirs) {
            return Place::Third(format!("blocks.{number}.attn.qkv{rest}"), third);
        }
    }
    match renamed(&INNER, inner).or_else(|| renamed(&IN_MEMORY, inner)) {
        Some(inner) => Place::Backbone(format!("blocks.{number}.{inner}")),
        None => Place::Nowhere,
    }
}

/// Hugging Face's names of a tensor of ours: one, or three for queries, keys
/// and values. None if there is none.
pub fn to_hf(name: &str) -> Option<Vec<String>> {
    let renamed = |pairs: &[(&str, &str)], name: &str| {
        pairs.iter().find_map(|(ours, theirs)| {
            let rest = name.strip_prefix(ours)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| format!("{theirs}{rest}"))
        })
    };
    let block = name.strip_prefix("blocks.");
    let Some((number, inner)) = block.and_then(|rest| rest.split_once('.')) else {
        return Some(vec![renamed(&OUTER, name)?]);
    };
    let full = |inner: &str| format!("encoder.layer.{number}.{inner}");
    if let Some(rest) = inner.strip_prefix("attn.qkv") {
        return Some(
            THIRDS
                .iter()
                .map(|third| full(&format!("{third}{rest}")))
                .collect(),
        );
    }
    Some(vec![full(&renamed(&INNER, inner)?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_to_hugging_face_and_back() {
        for name in [
            "cls_token",
            "patch_embed.proj.weight",
            "norm.bias",
            "blocks.11.norm1.weight",
            "blocks.0.attn.proj.bias",
            "blocks.3.mlp.fc2.weight",
        ] {
            let theirs = to_hf(name).unwrap();
            assert_eq!(theirs.len(), 1, "{name}");
            assert_eq!(of_hf(&theirs[0]), Place::Backbone(name.to_owned()));
        }
        let thirds = to_hf("blocks.2.attn.qkv.weight").unwrap();
        for (i, third) in thirds.iter().enumerate() {
            let expected = Place::Third("blocks.2.attn.qkv.weight".to_owned(), i);
            assert_eq!(of_hf(third), expected);
        }
        let newer = Place::Third("blocks.2.attn.qkv.bias".to_owned(), 1);
        assert_eq!(of_hf("vit.layers.2.attention.k_proj.bias"), newer);
        assert_eq!(to_hf("blocks.0.norm2.running_mean").unwrap().len(), 1);
        assert_eq!(to_hf("layer1.0.conv1.weight"), None);
    }

    #[test]
    fn parts_of_the_authors_checkpoints_find_their_places() {
        let place = |name| Layout::MocoV3.place(name);
        let backbone = "module.base_encoder.blocks.0.norm1.weight";
        assert_eq!(
            place(backbone),
            Place::Backbone("blocks.0.norm1.weight".into())
        );
        let head = "module.base_encoder.head.0.weight";
        assert_eq!(
            place(head),
            Place::Beside("base_encoder.head.0.weight".into())
        );
        let counter = "module.base_encoder.head.1.num_batches_tracked";
        assert!(matches!(place(counter), Place::Aside(_)));
    }
}
