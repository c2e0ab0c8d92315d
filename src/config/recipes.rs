//! The paper's recipes, part of the program: what a run is compared with.

use serde_json::{Map, Value};

use super::model::Arch;
use super::{MethodName, RunConfig, read};

/// One of the paper's recipes.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Its file's name below configs/paper, without `.json`.
    pub name: &'static str,
    pub config: RunConfig,
}

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../configs/paper/", $name, ".json")))),*]
    };
}

/// The recipes that [`nearest`] gives, and what they are based on.
const FILES: &[(&str, &str)] = files![
    "_imagenet_vit_300ep" "_imagenet_r50"
    "_moco_v3_vit_300ep" "_simclr_vit_300ep" "_byol_vit_300ep" "_swav_vit_300ep"
    "_moco_v3_r50" "_byol_r50"
    "moco_v3_vit_s16_300ep" "moco_v3_vit_b16_300ep" "moco_v3_vit_l16_300ep" "moco_v3_vit_h14_300ep"
    "moco_v3_vit_conv_s16_300ep" "moco_v3_vit_conv_b16_300ep"
    "simclr_vit_s16_300ep" "simclr_vit_b16_300ep"
    "byol_vit_s16_300ep" "byol_vit_b16_300ep"
    "swav_vit_s16_300ep" "swav_vit_b16_300ep"
    "moco_v3_r50_300ep" "simclr_r50_800ep" "byol_r50_800ep" "swav_r50_800ep"
];

/// The paper's recipe of the same method with the most similar encoder; none
/// for a method that the paper does not pre-train with.
pub fn nearest(config: &RunConfig) -> Option<Recipe> {
    let small = matches!(config.model.arch, Arch::VitSmall | Arch::VitConvSmall);
    let resnet = matches!(
        config.model.arch,
        Arch::ResNet18 | Arch::ResNet50 | Arch::ResNet
    );
    // A ViT of the run's own size is next to the small one.
    let small = small || config.model.arch == Arch::Vit;
    let name = match config.method.name {
        MethodName::SimSiam | MethodName::Supervised => return None,
        MethodName::MocoV3 if resnet => "moco_v3_r50_300ep",
        MethodName::SimClr if resnet => "simclr_r50_800ep",
        MethodName::Byol if resnet => "byol_r50_800ep",
        MethodName::SwAv if resnet => "swav_r50_800ep",
        MethodName::MocoV3 => match config.model.arch {
            Arch::VitConvSmall => "moco_v3_vit_conv_s16_300ep",
            Arch::VitConvBase => "moco_v3_vit_conv_b16_300ep",
            Arch::VitLarge => "moco_v3_vit_l16_300ep",
            Arch::VitHuge => "moco_v3_vit_h14_300ep",
            _ if small => "moco_v3_vit_s16_300ep",
            _ => "moco_v3_vit_b16_300ep",
        },
        MethodName::SimClr if small => "simclr_vit_s16_300ep",
        MethodName::SimClr => "simclr_vit_b16_300ep",
        MethodName::Byol if small => "byol_vit_s16_300ep",
        MethodName::Byol => "byol_vit_b16_300ep",
        MethodName::SwAv if small => "swav_vit_s16_300ep",
        MethodName::SwAv => "swav_vit_b16_300ep",
    };
    recipe(name)
}

fn recipe(wanted: &str) -> Option<Recipe> {
    let (name, _) = FILES.iter().find(|(name, _)| *name == wanted)?;
    let config = RunConfig::from_value(Value::Object(merged(name)?)).ok()?;
    Some(Recipe { name, config })
}

/// A file over its bases. They are named without folders, and the files lead
/// to no circle: a test resolves each.
fn merged(name: &str) -> Option<Map<String, Value>> {
    let (_, text) = FILES.iter().find(|(file, _)| *file == name)?;
    let mut object: Map<String, Value> = serde_json::from_str(text).ok()?;
    let Some(base) = object.shift_remove("base") else {
        return Some(object);
    };
    let under = merged(base.as_str()?.strip_suffix(".json")?)?;
    match read::layered(Value::Object(under), Value::Object(object)) {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_is_what_its_file_resolves_to() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper");
        for (name, _) in FILES.iter().filter(|(name, _)| !name.starts_with('_')) {
            let found = recipe(name).unwrap_or_else(|| panic!("{name} does not resolve"));
            let file = RunConfig::load(&folder.join(format!("{name}.json")), &[]).unwrap();
            assert_eq!(found.config, file, "{name}");
            // A recipe's nearest is one of its own method and encoder.
            let nearest = nearest(&file).unwrap();
            assert_eq!(nearest.config.model.arch, file.model.arch, "{name}");
            assert_eq!(nearest.config.method.name, file.method.name, "{name}");
        }
    }

    #[test]
    fn small_runs_have_a_recipe_and_other_methods_none() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        for (file, expected) in [
            ("quickstart.json", Some("moco_v3_vit_s16_300ep")),
            ("cifar10/moco_v3_resnet18.json", Some("moco_v3_r50_300ep")),
            ("cifar10/byol_vit_micro.json", Some("byol_vit_s16_300ep")),
            ("cifar10/simsiam_vit_micro.json", None),
        ] {
            let config = RunConfig::load(&folder.join(file), &[]).unwrap();
            assert_eq!(nearest(&config).map(|r| r.name), expected, "{file}");
        }
    }
}
