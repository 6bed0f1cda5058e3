"""Detection layers of SSD, Faster R-CNN, R-FCN and YOLO."""
