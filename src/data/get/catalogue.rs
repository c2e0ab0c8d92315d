//! Where data sets are published: sizes and checksums of the files as they
//! have been for years, and what their publishers say of their use.

/// A file of a data set.
#[derive(Clone, Copy, Debug)]
pub struct PublishedFile {
    pub url: &'static str,
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: &'static str,
}

impl PublishedFile {
    /// The last part of its address.
    pub fn name(&self) -> &'static str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }

    /// Whether it is a compressed tar file, which is unpacked.
    pub fn is_archive(&self) -> bool {
        [".tar.gz", ".tgz"]
            .iter()
            .any(|end| self.url.ends_with(end))
    }
}

/// A data set that anyone may download.
#[derive(Clone, Copy, Debug)]
pub struct PublishedSet {
    /// For `xla-moco data get`; also the folder's name.
    pub name: &'static str,
    pub title: &'static str,
    /// What is said of it before anything is downloaded.
    pub licence: &'static str,
    pub files: &'static [PublishedFile],
}

impl PublishedSet {
    /// Bytes to download.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// All of them.
pub const SETS: &[PublishedSet] = &[
    PublishedSet {
        name: "cifar10",
        title: "CIFAR-10",
        licence: "no licence is stated; its author asks to cite A. Krizhevsky, Learning Multiple \
                  Layers of Features from Tiny Images, 2009",
        files: &[PublishedFile {
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            bytes: 170_052_171,
            sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        }],
    },
    PublishedSet {
        name: "cifar100",
        title: "CIFAR-100",
        licence: "no licence is stated; its author asks to cite A. Krizhevsky, Learning Multiple \
                  Layers of Features from Tiny Images, 2009",
        files: &[PublishedFile {
            url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            bytes: 168_513_733,
            sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        }],
    },
    PublishedSet {
        name: "flowers102",
        title: "Oxford Flowers-102",
        licence: "no licence is stated, and the pictures belong to their photographers; cite M-E. \
                  Nilsback and A. Zisserman, Automated Flower Classification over a Large Number \
                  of Classes, ICVGIP 2008",
        files: &[
            PublishedFile {
                url: "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
                bytes: 344_862_509,
                sha256: "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            },
            PublishedFile {
                url: "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
                bytes: 502,
                sha256: "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            },
            PublishedFile {
                url: "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/setid.mat",
                bytes: 14_989,
                sha256: "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
            },
        ],
    },
    PublishedSet {
        name: "pets",
        title: "Oxford-IIIT Pets",
        licence: "CC BY-SA 4.0; copyright of the pictures remains with their owners; cite O. \
                  Parkhi, A. Vedaldi, A. Zisserman and C. V. Jawahar, Cats and Dogs, CVPR 2012",
        files: &[
            PublishedFile {
                url: "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
                bytes: 791_918_971,
                sha256: "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            },
            PublishedFile {
                url: "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
                bytes: 19_173_078,
                sha256: "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            },
        ],
    },
    PublishedSet {
        name: "stl10",
        title: "STL-10",
        licence: "no licence of its own; its pictures are from ImageNet, whose terms of access are \
                  for non-commercial research and education; cite A. Coates, H. Lee and A. Y. Ng, \
                  An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS \
                  2011",
        files: &[PublishedFile {
            url: "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            bytes: 2_640_397_119,
            sha256: "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole() {
        for set in SETS {
            let same_name = SETS.iter().filter(|other| other.name == set.name);
            assert_eq!(same_name.count(), 1, "{}", set.name);
            assert!(set.files.iter().any(PublishedFile::is_archive));
            for file in set.files {
                let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                assert!(file.sha256.len() == 64 && file.sha256.chars().all(is_hex));
                assert!(file.bytes > 0 && !file.name().is_empty());
            }
        }
    }
}
