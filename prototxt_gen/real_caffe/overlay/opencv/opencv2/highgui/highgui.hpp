// Caffe includes highgui for its image codecs only; those live in imgcodecs since OpenCV 3.
#ifndef PROTOTXT_GEN_OPENCV_HIGHGUI_HPP_
#define PROTOTXT_GEN_OPENCV_HIGHGUI_HPP_

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

// OpenCV 4 dropped these names of the C interface.
#define CV_LOAD_IMAGE_GRAYSCALE cv::IMREAD_GRAYSCALE
#define CV_LOAD_IMAGE_COLOR cv::IMREAD_COLOR
#define CV_IMWRITE_JPEG_QUALITY cv::IMWRITE_JPEG_QUALITY
#define CV_THRESH_BINARY_INV cv::THRESH_BINARY_INV
#define CV_THRESH_OTSU cv::THRESH_OTSU
#define CV_BGR2GRAY cv::COLOR_BGR2GRAY
#define CV_GRAY2BGR cv::COLOR_GRAY2BGR
#define CV_BGR2HSV cv::COLOR_BGR2HSV
#define CV_HSV2BGR cv::COLOR_HSV2BGR
#define CV_BGR2Lab cv::COLOR_BGR2Lab
#define CV_Lab2BGR cv::COLOR_Lab2BGR
#define CV_BGR2YCrCb cv::COLOR_BGR2YCrCb
#define CV_YCrCb2BGR cv::COLOR_YCrCb2BGR

#endif  // PROTOTXT_GEN_OPENCV_HIGHGUI_HPP_
