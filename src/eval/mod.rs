pub mod knn;
