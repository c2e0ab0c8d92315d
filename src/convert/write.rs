//! Weights in the formats of other tools, a folder each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value as Json, json};

use super::record::{LAYER_NORM_EPS, NOTE, note};
use super::weights::Weights;
use super::{names, onnx, parity, record, safetensors_file};
use crate::bad_input;
use crate::checkpoint::{self, HostTensor, Origin, RunDir, Snapshot, atomic, host_name};
use crate::config::{
    Backbone, Block, ComputeDtype, MlpNorm, Output, PatchProjection, Position, ResNet, Stem, Vit,
};
use crate::programs::features::{self, Form};

const WEIGHTS_FILE: &str = "model.safetensors";

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Target {
    /// A run of ours: knn, probe and train --continue-from take it
    XlaMoco,
    /// timm.create_model("local-dir:DIR", pretrained=True)
    Timm,
    /// transformers.ViTModel.from_pretrained("DIR")
    Hf,
    /// The state dict of a torchvision.models.ResNet
    Torchvision,
    /// The backbone as an ONNX model
    Onnx,
    /// The backbone as StableHLO, with its weights as arguments
    Stablehlo,
}

impl Target {
    /// As the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::XlaMoco => "xla-moco",
            Self::Timm => "timm",
            Self::Hf => "hf",
            Self::Torchvision => "torchvision",
            Self::Onnx => "onnx",
            Self::Stablehlo => "stablehlo",
        }
    }
}

/// Writes a folder: the weights and what describes them, the parity vector
/// `output` (see [`super::features`]), and last the record.
///
/// # Errors
/// [`bad_input!`] for a model that the other tool does not have, and for a
/// folder that is not empty.
pub fn write(
    weights: &Weights,
    to: Target,
    out: &Path,
    batch: usize,
    output: &[f32],
) -> Result<()> {
    check_can_be(weights, to)?;
    make_empty(out)?;
    match to {
        Target::XlaMoco => run_folder(out, weights),
        Target::Timm => timm(out, weights),
        Target::Hf => hf(out, weights),
        Target::Torchvision => torchvision(out, weights),
        Target::Onnx => onnx::write(out, weights),
        Target::Stablehlo => stablehlo(out, weights, batch),
    }?;
    parity::write(out, weights, output)?;
    record::write(out, weights, to.name())
}

fn make_empty(out: &Path) -> Result<()> {
    let cannot = |error| bad_input!("cannot write into {}: {error}", out.display());
    fs::create_dir_all(out).map_err(cannot)?;
    match fs::read_dir(out).map_err(cannot)?.next() {
        None => Ok(()),
        Some(_) => Err(bad_input!(
            "the folder {} is not empty: give a new one with --out",
            out.display()
        )),
    }
}

/// Refuses what the other tool has no model for.
fn check_can_be(weights: &Weights, to: Target) -> Result<()> {
    let refuse = |what: &str| {
        Err(bad_input!(
            "{} has no model like this: {what}. --to onnx and --to stablehlo take every model",
            to.name()
        ))
    };
    match (&weights.config.model.backbone, to) {
        (_, Target::XlaMoco | Target::Onnx | Target::Stablehlo) => Ok(()),
        (Backbone::Vit(_), Target::Torchvision) => refuse("this is a ViT; expected a ResNet"),
        (Backbone::ResNet(_), Target::Hf) => refuse("this is a ResNet; expected a ViT"),
        (Backbone::ResNet(net), _) if net.stem != Stem::Large || net.width != 64 => {
            refuse("expected a 7x7 stem of 64 channels")
        }
        (Backbone::ResNet(net), _) if net.stages.len() != 4 => refuse("expected four stages"),
        (Backbone::ResNet(_), _) => Ok(()),
        (Backbone::Vit(vit), _) => match () {
            () if vit.mlp_norm != MlpNorm::Layer => refuse("its MLPs have BN before them"),
            () if !matches!(
                vit.patch_projection,
                PatchProjection::Frozen | PatchProjection::Learned
            ) =>
            {
                refuse("its patch projection is no single convolution")
            }
            () if vit.position == Position::None => refuse("it has no position embedding"),
            () if vit.output == Output::Pool => refuse("it has no final norm"),
            () if vit.output != Output::Class && to == Target::Hf => {
                refuse("it has no class token")
            }
            () => Ok(()),
        },
    }
}

/// The backbone under other names, with the note that makes the file enough.
fn weights_file(out: &Path, weights: &Weights, tensors: &[HostTensor]) -> Result<()> {
    let notes = [(NOTE, note(weights).to_string())];
    safetensors_file::write(&out.join(WEIGHTS_FILE), tensors, &notes)
}

fn json_file(path: &Path, json: &Json) -> Result<()> {
    atomic::write_file(path, format!("{json:#}\n").as_bytes())
}

fn run_folder(out: &Path, weights: &Weights) -> Result<()> {
    let run = RunDir::create(out)?;
    let mut config = weights.config.clone();
    config.model.compute_dtype = ComputeDtype::default();
    run.write_config(&config.to_value())?;
    let backbone = prefixed(&weights.backbone);
    let all = backbone.into_iter().chain(weights.beside.iter().cloned());
    let origin = Origin {
        host: host_name(),
        crate_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Origin::default()
    };
    let _lock = run.lock()?;
    checkpoint::save(&run, &Snapshot::new(0, all.collect())?, &origin)?;
    Ok(())
}

fn prefixed(backbone: &[HostTensor]) -> Vec<HostTensor> {
    let prefixed = |tensor: &HostTensor| HostTensor {
        name: format!("base_encoder.{}", tensor.name),
        ..tensor.clone()
    };
    backbone.iter().map(prefixed).collect()
}

fn timm(out: &Path, weights: &Weights) -> Result<()> {
    let model = &weights.config.model;
    let side = model.image_size;
    let (architecture, arguments, first, classifier, pool) = match &model.backbone {
        Backbone::Vit(vit) => (
            vit_architecture(vit),
            vit_arguments(vit, side),
            "patch_embed.proj",
            "head",
            if vit.output == Output::Class {
                "token"
            } else {
                "avg"
            },
        ),
        Backbone::ResNet(net) => (
            match net.block {
                Block::Basic => "resnet18",
                Block::Bottleneck => "resnet50",
            },
            json!({"layers": net.stages}),
            "conv1",
            "fc",
            "avg",
        ),
    };
    let augment = &weights.config.augment;
    let config = json!({
        "architecture": architecture,
        "num_classes": 0,
        "num_features": model.features(),
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "xla_moco",
            "custom_load": false,
            "input_size": [3, side, side],
            "fixed_input_size": model.vit().is_some(),
            "interpolation": "bilinear",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": augment.mean,
            "std": augment.std,
            "num_classes": 0,
            "pool_size": null,
            "first_conv": first,
            "classifier": classifier,
        },
    });
    weights_file(out, weights, &weights.backbone)?;
    json_file(&out.join("config.json"), &config)
}

/// timm's model to start from; [`vit_arguments`] says all that matters.
fn vit_architecture(vit: &Vit) -> &'static str {
    match vit.dim {
        384 => "vit_small_patch16_224",
        1024 => "vit_large_patch16_224",
        1280 => "vit_huge_patch14_224",
        _ => "vit_base_patch16_224",
    }
}

fn vit_arguments(vit: &Vit, side: usize) -> Json {
    let mut arguments = json!({
        "img_size": side,
        "patch_size": vit.patch,
        "embed_dim": vit.dim,
        "depth": vit.blocks,
        // timm's ViT-S has 6, the authors' 12.
        "num_heads": vit.heads,
        "mlp_ratio": vit.mlp_ratio,
    });
    if vit.output != Output::Class {
        arguments["class_token"] = false.into();
        arguments["global_pool"] = "avg".into();
        // Our norm comes before the mean over tokens.
        arguments["fc_norm"] = false.into();
    }
    arguments
}

fn hf(out: &Path, weights: &Weights) -> Result<()> {
    let model = &weights.config.model;
    let vit = model.vit().context("a ViT")?;
    let mut tensors = Vec::new();
    for tensor in &weights.backbone {
        let names = names::to_hf(&tensor.name)
            .with_context(|| format!("{} has no name there", tensor.name))?;
        let mut shape = tensor.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows /= names.len();
        }
        let part = tensor.data.len() / names.len();
        for (name, data) in names.into_iter().zip(tensor.data.chunks_exact(part.max(1))) {
            tensors.push(HostTensor {
                name,
                dtype: tensor.dtype,
                shape: shape.clone(),
                data: data.to_vec(),
            });
        }
    }
    let side = model.image_size;
    let config = json!({
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": vit.dim,
        "num_hidden_layers": vit.blocks,
        "num_attention_heads": vit.heads,
        "intermediate_size": vit.mlp_ratio * vit.dim,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": LAYER_NORM_EPS,
        "image_size": side,
        "patch_size": vit.patch,
        "num_channels": 3,
        "qkv_bias": true,
        "torch_dtype": "float32",
    });
    let augment = &weights.config.augment;
    let processor = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": {"height": side, "width": side},
        // Bilinear.
        "resample": 2,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": augment.mean,
        "image_std": augment.std,
    });
    weights_file(out, weights, &tensors)?;
    json_file(&out.join("config.json"), &config)?;
    json_file(&out.join("preprocessor_config.json"), &processor)
}

fn torchvision(out: &Path, weights: &Weights) -> Result<()> {
    let model = &weights.config.model;
    let Backbone::ResNet(net) = &model.backbone else {
        return Err(bad_input!("torchvision takes a ResNet only"));
    };
    let augment = &weights.config.augment;
    let config = json!({
        "architecture": resnet_name(net),
        "block": match net.block {
            Block::Basic => "BasicBlock",
            Block::Bottleneck => "Bottleneck",
        },
        "layers": net.stages,
        "image_size": model.image_size,
        "mean": augment.mean,
        "std": augment.std,
    });
    weights_file(out, weights, &weights.backbone)?;
    json_file(&out.join("config.json"), &config)
}

/// What torchvision calls it; none where it has no name.
fn resnet_name(net: &ResNet) -> Option<&'static str> {
    Some(match (net.block, &net.stages[..]) {
        (Block::Basic, [2, 2, 2, 2]) => "resnet18",
        (Block::Basic, [3, 4, 6, 3]) => "resnet34",
        (Block::Bottleneck, [3, 4, 6, 3]) => "resnet50",
        (Block::Bottleneck, [3, 4, 23, 3]) => "resnet101",
        (Block::Bottleneck, [3, 8, 36, 3]) => "resnet152",
        _ => return None,
    })
}

fn stablehlo(out: &Path, weights: &Weights, batch: usize) -> Result<()> {
    let mut config = weights.config.clone();
    config.mesh.data = 1;
    config.model.compute_dtype = ComputeDtype::F32;
    let program = features::build(&config, batch, Form::Plain)?;
    atomic::write_file(&out.join("model.mlir"), program.text().as_bytes())?;
    json_file(&out.join("model.signature.json"), &program.signature())?;
    weights_file(out, weights, &prefixed(&weights.backbone))
}
